import pytest

from models.gate import TOLERANCE, gate


@pytest.mark.parametrize(
    ("new", "old", "passed"),
    [
        ((0.01, 0.50), (0.01, 0.01), True),
        ((0.01, 0.50), (0.01 + TOLERANCE + 0.001, 0.01), False),
        ((0.08, 0.01), (0.01, 0.01), False),
        ((0.01, 0.01), (0.01 + TOLERANCE - 0.001, 0.01), True),
    ],
)
def test_a_candidate_may_be_worse_only_within_the_tolerance(
    new: tuple, old: tuple, passed: bool
) -> None:
    """On new and on old normals alike, against the champion's own rate."""
    names = ("candidate", "champion")
    verdict = gate(
        {"new": dict(zip(names, new, strict=True)), "old": dict(zip(names, old, strict=True))}
    )
    assert verdict.passed is passed
    assert bool(verdict.reasons) is not passed


def test_the_first_version_passes() -> None:
    """There is nothing to compare it with."""
    assert gate({"new": {"candidate": 0.4}}).passed
