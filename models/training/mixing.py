"""The mixing weights w_prev and w_new, and how many old and new vectors a batch has."""

import math
from collections.abc import Iterator, Mapping, Sequence

LEAST_NEW = 0.3  # the least share of a batch for a new regime
RARE = 0.01  # a new vector is novel to the previous version up to this p-value
NOVEL = 0.05  # the new vectors contain a new regime from this share of novel vectors on


def weights(policy: str | Mapping[str, float], learned: int, n_new: int) -> tuple[float, float]:
    """Return (w_prev, w_new), which sum to 1.

    Parameters
    ----------
    policy
        `proportional`: n_prev / n and n_new / n, by the vectors learned so far. `equal`: (0.5,
        0.5). `{"w_prev", "w_new"}`: as given. `{"half_life": h}`: an experience loses half its
        weight over h further experiences, so w_prev = 2 ** (-1 / h). `auto`: as `proportional`, if
        there is nothing on which to try weights.
    learned
        Vectors that the previous version and its ancestors have learned.
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
    """Return the w_new that `auto` tries: by counts first, then 0.2, 0.5 and 0.8.

    >>> candidates(learned=300, n_new=300)
    [0.5, 0.2, 0.8]
    """
    return list(dict.fromkeys([n_new / (learned + n_new), 0.2, 0.5, 0.8]))


def best_weight(probes: Sequence[Mapping[str, float]], learned: int, n_new: int) -> float:
    """Return the w_new of the probe with the lowest mean loss over all normals, old and new.

    Each probe has `w_new` and its mean losses `old` and `new`, in nats. The mean is over the
    `learned` old vectors and the new ones. A high old loss therefore counts in full: the rest of
    the training improves on new vectors, but does not recover forgotten ones.

    >>> best_weight([{"w_new": 0.1, "old": 20.0, "new": 29.0},
    ...       {"w_new": 0.5, "old": 21.0, "new": 25.0},
    ...       {"w_new": 0.8, "old": 26.0, "new": 24.5}], 300, 100)
    0.5
    """
    return min(probes, key=lambda p: learned * p["old"] + n_new * p["new"])["w_new"]


def least_new(novel: float, n: int) -> float:
    """Return the least share of a batch for n new vectors, given their share `novel`.

    By counts alone, fifty rows of a new regime after twenty thousand rows would give one row in
    every third batch, and the regime would not be learned. `novel` is the share of new vectors with
    p <= RARE under the previous version. A share that chance explains gives 0.

    >>> least_new(1.0, 50), least_new(0.03, 50)
    (0.3, 0.0)
    """
    chance = RARE + 3.0 * math.sqrt(RARE * (1.0 - RARE) / n)
    return LEAST_NEW * min(1.0, max(0.0, novel - chance) / NOVEL)


def steps_per_epoch(n_new: int, batch_size: int, w_new: float) -> int:
    """Return the number of gradient steps in one pass over `n_new` new vectors."""
    return math.ceil((n_new + _old(n_new, w_new)) / batch_size)


def _old(n_new: int, w_new: float) -> int:
    """Return the number of old vectors for `n_new` new ones."""
    return round(n_new * (1.0 - w_new) / w_new)


def counts(n_new: int, batch_size: int, w_new: float) -> Iterator[tuple[int, int]]:
    """Yield (n_prev, n_new) of each step of one epoch over `n_new` new vectors.

    The counts of every step sum to `batch_size`, in the ratio of the weights. The rounding error is
    carried over to the next step. The last step may be smaller; it keeps the ratio of the epoch.

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
