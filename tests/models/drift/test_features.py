"""Did a feature move: against all that was learned, and against how far normals go from it."""

import numpy as np

from models.drift.features import FeatureTest
from models.drift.windows import ROWS
from models.parts.reference import WINDOW, Reference

DAY = 1440  # rows


def minutes(days: int, seed: int) -> np.ndarray:
    """Return a feature with a season of a day, and one without, a row a minute, (n, 2)."""
    rng = np.random.default_rng(seed)
    at = np.arange(days * DAY)
    season = 3 * np.sin(2 * np.pi * at / DAY)
    return (rng.normal(size=(days * DAY, 2)) + np.c_[season, np.zeros_like(season)]).astype("f")


def moved(reference: Reference, X: np.ndarray) -> set[str]:
    """Return the features that alarm at any look at X, fifty rows apart."""
    test = FeatureTest(reference.expected, 1000, ("seasonal", "steady"), reference.wander)
    found = set()
    for start in range(0, len(X), 50):
        test.update(reference.count(X[start : start + 50]))
        found |= {one.feature for one in test.verdicts() if one.alarm}
    return found


def test_a_season_that_was_learned_is_no_drift_and_a_step_is() -> None:
    """Also where the days were learned in several experiences."""
    learned = minutes(4, 0)
    reference = Reference.fit(learned[:DAY]).updated(learned[DAY:], 0.25)
    assert moved(reference, minutes(10, 1)) == set()
    assert moved(reference, minutes(1, 1) + np.float32([0, 1])) == {"steady"}
    assert moved(reference, minutes(1, 1) + np.float32([7, 0])) == {"seasonal"}


def test_few_rows_say_nothing_of_how_far_normals_go() -> None:
    """Less than a window, and a reference that an earlier release stored."""
    learned = minutes(1, 0)[: WINDOW - 1]
    reference = Reference.fit(learned)
    assert reference.wander.tolist() == [0.0, 0.0]
    stored = {"reference.edges": reference.edges, "reference.expected": reference.expected}
    assert Reference.from_tensors(stored).wander.tolist() == [0.0, 0.0]


def test_a_window_of_normals_is_one_of_the_live_rows() -> None:
    """The two packages know of no other."""
    assert WINDOW == ROWS
