"""How much of the past and how much of the new: the weights w_prev, w_new and their counts."""

import math
from collections.abc import Iterator, Mapping, Sequence

LEAST_NEW = 0.3  # share of a batch that a new regime has at the least
RARE = 0.01  # p-value from which on a new vector is news to the previous version
NOVEL = 0.05  # share of the new vectors from which on they hold a new regime


def weights(policy: str | Mapping[str, float], learned: int, n_new: int) -> tuple[float, float]:
    """Return (w_prev, w_new), which sum to 1.

    Parameters
    ----------
    policy
        `proportional`: n_prev / n and n_new / n by vectors learned so far;
        `equal`: (.5, .5); `{"w_prev", "w_new"}`: as given;
        `{"half_life": h}`: the past weighs what it would after each experience had lost half its
        weight over h experiences: w_prev = 2 ** (-1 / h);
        `auto`: proportional, where there is nothing to try weights on.
    learned
        Vectors the previous version's lineage has learned from.
    n_new
        Vectors in the new experience.

    >>> weights("proportional", learned=300, n_new=100)
    (0.75, 0.25)
    >>> weights({"half_life": 1}, learned=300, n_new=100)
    (0.5, 0.5)
    """
    if learned == 0:
        return 0.0, 1.0
    if policy in ("proportional", "auto"):
        return learned / (learned + n_new), n_new / (learned + n_new)
    if policy == "equal":
        return 0.5, 0.5
    assert isinstance(policy, Mapping)
    if "half_life" in policy:
        w_prev = 2.0 ** (-1.0 / policy["half_life"])
        return w_prev, 1.0 - w_prev
    return policy["w_prev"], policy["w_new"]


def candidates(learned: int, n_new: int) -> list[float]:
    """Return the w_new that `auto` tries: by counts first, then .2, .5 and .8.

    >>> candidates(learned=300, n_new=300)
    [0.5, 0.2, 0.8]
    """
    return list(dict.fromkeys([n_new / (learned + n_new), 0.2, 0.5, 0.8]))


def best(probes: Sequence[Mapping[str, float]], learned: int, n_new: int) -> float:
    """Return the w_new of the probe under which all normals together, old and new, lose least.

    Each probe has `w_new` and the mean losses that it led to, `old` and `new`, in nats; `learned`
    old vectors count as often as there are of them. What is forgotten is not learned again,
    while the new is what the rest of the training goes on to learn.

    >>> best([{"w_new": 0.1, "old": 20.0, "new": 29.0},
    ...       {"w_new": 0.5, "old": 21.0, "new": 25.0},
    ...       {"w_new": 0.8, "old": 26.0, "new": 24.5}], 300, 100)
    0.5
    """
    return min(probes, key=lambda p: learned * p["old"] + n_new * p["new"])["w_new"]


def least_new(novel: float, n: int) -> float:
    """Return the least share in a batch of n new vectors, given how many of them are novel.

    By the counts alone fifty rows of a new regime after twenty thousand would be in every third
    batch once, and the regime would not be learned. `novel` is their share that is as rare to the
    previous version as RARE of its own: what chance explains of it asks for nothing.

    >>> least_new(1.0, 50), least_new(0.03, 50)
    (0.3, 0.0)
    """
    chance = RARE + 3.0 * math.sqrt(RARE * (1.0 - RARE) / n)
    return LEAST_NEW * min(1.0, max(0.0, novel - chance) / NOVEL)


def steps_per_epoch(n_new: int, batch_size: int, w_new: float) -> int:
    """Return how many gradient steps one pass over `n_new` new vectors takes."""
    return math.ceil((n_new + _old(n_new, w_new)) / batch_size)


def _old(n_new: int, w_new: float) -> int:
    """Return how many old vectors come with `n_new` new ones."""
    return round(n_new * (1.0 - w_new) / w_new)


def counts(n_new: int, batch_size: int, w_new: float) -> Iterator[tuple[int, int]]:
    """Yield (n_prev, n_new) of each step of one epoch over `n_new` new vectors.

    Every step's counts sum to `batch_size` in the ratio of the weights, what rounding leaves is
    carried over to the next step, and the last, partial step keeps the ratio of the epoch.

    >>> list(counts(n_new=5, batch_size=4, w_new=0.5))
    [(2, 2), (2, 2), (1, 1)]
    >>> list(counts(n_new=4, batch_size=4, w_new=0.375))
    [(2, 2), (3, 1), (2, 1)]
    """
    steps = steps_per_epoch(n_new, batch_size, w_new)
    old_left, taken = _old(n_new, w_new), 0
    for step in range(1, steps + 1):
        last = step == steps
        step_new = (n_new if last else min(n_new, round(step * batch_size * w_new))) - taken
        step_old = min(old_left, batch_size - step_new)
        taken += step_new
        old_left -= step_old
        yield step_old, step_new
