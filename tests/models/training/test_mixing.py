import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.mixing import best_weight, candidates, counts, steps_per_epoch, weights


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("proportional", (0.75, 0.25)),
        ("equal", (0.5, 0.5)),
        ({"w_prev": 0.2, "w_new": 0.8}, (0.2, 0.8)),
        ({"half_life": 2}, (2**-0.5, 1 - 2**-0.5)),
    ],
)
def test_each_policy_weighs_as_its_formula_says(policy: object, expected: tuple) -> None:
    """With 300 learned and 100 new vectors each policy's weights follow its formula."""
    assert weights(policy, 300, 100) == pytest.approx(expected)


def test_first_vectors_have_all_the_weight() -> None:
    """Before the first version the new vectors have all the weight, whatever the policy."""
    assert weights("equal", 0, 100) == (0.0, 1.0)


def test_the_counts_of_each_batch_follow_from_the_weights() -> None:
    """133 new vectors of weight 1/9 in batches of 64 give 57 and 7, and 40 and 5 at the end."""
    steps = list(counts(133, 64, 1 / 9))
    assert steps[:5] == [(57, 7), (57, 7), (57, 7), (57, 7), (56, 8)]
    assert steps[-1] == (40, 5)
    assert len(steps) == 19


@given(st.integers(1, 2000), st.integers(1, 300), st.floats(0.01, 1.0, exclude_min=True))
def test_an_epoch_sees_every_new_vector_once_in_the_ratio(n: int, size: int, w_new: float) -> None:
    """An epoch has every new vector once, old ones in the ratio, and full batches but the last."""
    steps = list(counts(n, size, w_new))
    assert len(steps) == steps_per_epoch(n, size, w_new)
    assert sum(new for _, new in steps) == n
    assert sum(old for old, _ in steps) == pytest.approx(
        n * (1 - w_new) / w_new, abs=1 + size * 1e-6
    )
    assert all(old + new == size for old, new in steps[:-1])
    assert all(old >= 0 and new >= 0 for old, new in steps)


def test_auto_takes_the_weights_with_the_least_loss() -> None:
    """Each vector counts once, so many old ones weigh more than few new ones."""
    probes = [
        {"w_new": 0.1, "old": 10.0, "new": 30.0},
        {"w_new": 0.5, "old": 14.0, "new": 22.0},
        {"w_new": 0.8, "old": 19.0, "new": 20.0},
    ]
    assert best_weight(probes, 400, 100) == 0.1
    assert best_weight(probes, 100, 100) == 0.5
    assert best_weight(probes, 100, 900) == 0.8
    assert candidates(900, 100) == [0.1, 0.2, 0.5, 0.8]


def test_no_step_is_empty():
    """If old vectors are rounded down to whole batches, no empty step follows."""
    w_new = weights({"half_life": 2}, 400, 300)[1]
    assert all(old + new for n in (75, 240, 300) for old, new in counts(n, 64, w_new))
