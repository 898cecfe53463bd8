"""Whether a feature moved: compared with all learned values and with how far normals drift."""

import numpy as np
import pytest

from models.drift.features import FeatureTest
from models.drift.state import Baseline, DriftTests, Sample
from models.drift.windows import ROWS
from models.parts.reference import WINDOW, Reference

DAY = 1440  # rows


def minutes(days: int, seed: int) -> np.ndarray:
    """Return a feature with a daily season and one without, a row a minute, (n, 2)."""
    rng = np.random.default_rng(seed)
    at = np.arange(days * DAY)
    season = 3 * np.sin(2 * np.pi * at / DAY)
    return (rng.normal(size=(days * DAY, 2)) + np.c_[season, np.zeros_like(season)]).astype("f")


def moved(reference: Reference, X: np.ndarray) -> set[str]:
    """Return the features that alarm at any check of X, fifty rows apart."""
    test = FeatureTest(reference.expected, 1000, ("seasonal", "steady"), reference.wander)
    moved_features = set()
    for start in range(0, len(X), 50):
        test.update(reference.bin_counts(X[start : start + 50]))
        moved_features |= {finding.feature for finding in test.findings()[0] if finding.alarm}
    return moved_features


def test_a_season_that_was_learned_is_no_drift_and_a_step_is() -> None:
    """A learned season is no drift and a step is, also if several experiences taught the days."""
    learned = minutes(4, 0)
    reference = Reference.fit(learned[:DAY]).updated(learned[DAY:], 0.25)
    assert moved(reference, minutes(10, 1)) == set()
    assert moved(reference, minutes(1, 1) + np.float32([0, 1])) == {"steady"}
    assert moved(reference, minutes(1, 1) + np.float32([7, 0])) == {"seasonal"}


def test_scores_that_follow_a_season_are_no_drift() -> None:
    """Scores that follow a learned season are no drift, though the martingale alone would alarm."""

    def p_values(days: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        scores = minutes(days, seed)[:, 0].astype(float) + shift
        return scores, (1 + (calm[:, None] >= scores[::1]).sum(axis=0)) / (1 + len(calm))

    calm = np.sort(minutes(4, 0)[::4, 0].astype(float))
    reference = Reference.fit(minutes(4, 0)).with_scores(p_values(4, 0)[1])

    def states(wander: float, days: int, shift: float) -> set[str]:
        baseline = Baseline(
            "u", 1, calm, np.full((1, 16), 1 / 16), np.ones(1), 1000, ("a",), 0.01,
            score_wander=wander,
        )  # fmt: skip
        drift, states_seen = DriftTests(baseline), set()
        parts = [np.array_split(column, days * 30) for column in p_values(days, 1, shift)]
        for scores, p in zip(*parts, strict=True):
            counts = np.bincount(np.arange(len(p)) % 16, minlength=16)[None]
            drift.update(Sample(scores, p, 0, len(p), counts))
            states_seen.add(drift.verdict().state)
        return states_seen

    far = float(reference.score_wander[0])
    assert "new_regime" in states(0.0, 5, 0.0)
    assert states(far, 5, 0.0) == {"none"}
    assert states(far, 5, 3.0) == {"none", "new_regime"}


def test_a_window_is_compared_with_the_other_half() -> None:
    """A window is compared with the half of the experience to which it does not belong."""
    states = np.repeat(np.float32([[0], [1]]), 2 * WINDOW, axis=0)
    assert Reference.fit(states).wander.tolist() == [1.0]
    mixed = np.tile(np.float32([[0], [1]]), (2 * WINDOW, 1))
    assert Reference.fit(mixed).wander.tolist() == [0.0]


@pytest.mark.parametrize(
    ("wander", "features", "moved", "alarm"),
    [
        (0.0, 38, {0: 0.112}, True),  # one feature is enough if rows are independent
        (0.0, 38, {0: 0.09}, False),
        (0.2, 38, {0: 0.112}, False),
        (0.2, 38, {0: 0.3, 1: 0.2, 2: 0.15}, False),
        (0.2, 38, {0: 0.3, 1: 0.25, 2: 0.15, 3: 0.15}, True),
        (0.2, 10, {0: 0.21}, True),
        (0.2, 10, {0: 0.19}, False),
        (0.2, 11, {0: 0.21}, False),
        (0.2, 20, {19: 0.5}, True),  # 0.25 beyond that feature's own range
        (0.2, 20, {19: 0.4}, False),
    ],
)
def test_the_input_moved_if_features_leave_their_range(
    wander: float, features: int, moved: dict[int, float], alarm: bool
) -> None:
    """The input moved if excess distances sum to 0.1 for ten features, or 0.01 if none wanders."""
    expected = np.tile(np.repeat([0.5, 0.0], [2, 14]), (features, 1))
    wanders = np.where(np.arange(features) == features - 1, wander, 0.0)
    test = FeatureTest(expected, 10**9, [str(j) for j in range(features)], wanders)
    live = np.tile(np.int64([500, 500] + [0] * 14), (features, 1))
    for feature, distance in moved.items():
        live[feature, :2] = (500 + 1000 * distance, 500 - 1000 * distance)
    test.update(live)
    assert test.findings()[1].alarm is alarm


def test_with_few_rows_no_distance_of_normals_is_known() -> None:
    """With less than a window of rows, or an earlier release's reference, no distance is known."""
    learned = minutes(1, 0)[: WINDOW - 1]
    reference = Reference.fit(learned)
    assert reference.wander.tolist() == [0.0, 0.0]
    assert reference.with_scores(np.zeros(WINDOW - 1)).score_wander.tolist() == [0.0]
    stored = {"reference.edges": reference.edges, "reference.expected": reference.expected}
    assert Reference.from_tensors(stored).wander.tolist() == [0.0, 0.0]


def test_reference_and_monitor_have_windows_of_the_same_length() -> None:
    """The window of the reference and the window of the monitor have the same length."""
    assert WINDOW == ROWS
