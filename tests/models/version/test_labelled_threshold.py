"""The threshold from labels, on cases counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Config, Model, Version, train
from models.parts.calibration import Calibration, Threshold, representable
from models.parts.labels import Labels
from models.version.labelled_threshold import FEWEST, by_labels, optimum

_FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
HUNDRED = Calibration(np.arange(1.0, 101.0))


def threshold_for(anomalies: list[float], normals: list[float], **criterion: float) -> Threshold:
    """Return the threshold for vectors of one number, which is also the score."""
    vectors = np.array([anomalies + normals], np.float32).T
    labels = Labels(vectors, np.arange(len(vectors)) < len(anomalies))
    return by_labels(HUNDRED, criterion, labels, lambda X: X[:, 0].astype(np.float64))


@pytest.mark.parametrize(
    ("criterion", "best"),
    [
        # Thresholds 0, 1, 3, 5, 7 and above 8 catch 3 3 2 2 1 0 of 3, alarm on 2 1 1 0 0 0 of 2.
        ({"beta": 1.0}, 1.0),  # 6/7 here; 4/5 at threshold 5
        ({"beta": 0.5}, 5.0),  # 10/11 here; 15/19 at threshold 1
        ({"miss": 1.0, "false_alarm": 3.0}, 5.0),
        ({"miss": 3.0, "false_alarm": 1.0}, 1.0),
        ({"miss": 1.0, "false_alarm": 1.0}, 5.0),  # the same cost as at 1: the highest of equals
        ({"miss": 1e-5, "false_alarm": 9.0}, 5.0),
    ],
)
def test_the_threshold_equals_the_best_one_found_by_hand(
    criterion: dict[str, float], best: float
) -> None:
    """F-beta and cost are best at the threshold that a count by hand finds."""
    scores = np.array([0.0, 2.0, 4.0, 6.0, 8.0])
    anomalous = np.array([False, True, False, True, True])
    assert optimum(scores, anomalous, criterion) == best


def test_no_vector_alarms_if_that_costs_least() -> None:
    """If a miss is cheap and anomalies score below normals, no labelled vector alarms."""
    scores, anomalous = np.array([1.0, 2.0]), np.array([True, False])
    best = optimum(scores, anomalous, {"miss": 1.0, "false_alarm": 2.0})
    assert best == np.nextafter(np.float32(2.0), np.float32(3.0))
    assert optimum(scores, anomalous, {"miss": 2.0, "false_alarm": 1.0}) == 1.0


def test_of_two_neighbouring_floats_the_upper_is_the_threshold() -> None:
    """Between two neighbouring floats there is no middle, so the upper one is the threshold."""
    low = np.float32(16_777_216.0)
    high = np.nextafter(low, np.float32(np.inf))
    scores = np.array([low, high], np.float64)
    assert optimum(scores, np.array([False, True]), {"beta": 1.0}) == high


def test_equal_scores_have_the_same_verdict() -> None:
    """Equal scores have the same verdict: an anomaly equal to three normals does not alarm."""
    scores = np.array([1.0, 5.0, 5.0, 5.0, 5.0, 9.0])
    anomalous = np.array([False, True, False, False, False, True])
    assert optimum(scores, anomalous, {"beta": 1.0}) == 7.0


@given(
    st.lists(st.tuples(_FLOATS, st.booleans()), min_size=1, max_size=12),
    st.floats(0.1, 10.0),
)
def test_no_other_threshold_is_better(judged: list[tuple[float, bool]], beta: float) -> None:
    """No other float32 threshold has a higher F-beta or a lower cost."""
    scores = np.array([score for score, _ in judged])
    anomalous = np.array([anomaly for _, anomaly in judged])

    def cost(at: float) -> float:
        alarmed = scores >= at
        return float(beta * (anomalous & ~alarmed).sum() + (alarmed & ~anomalous).sum())

    best = optimum(scores, anomalous, {"miss": beta, "false_alarm": 1.0})
    assert best == float(np.float32(best))
    others = [*scores, *np.nextafter(scores.astype(np.float32), np.float32(np.inf))]
    assert cost(best) <= min(map(cost, others))


def test_labels_decide_from_five_of_each() -> None:
    """With five labels of each kind they decide; alpha is the p-value at the threshold."""
    threshold = threshold_for(
        [97.0, 98.0, 99.0, 100.0, 101.0], [10.0, 20.0, 30.0, 40.0, 93.0], beta=1.0
    )
    assert threshold.value == 95.0
    assert threshold.alpha == HUNDRED.p_values(np.array([95.0]))[0]
    assert threshold.calibration == "exact"
    assert threshold.labels == {"anomaly": 5, "normal": 5, "needed": FEWEST}


@pytest.mark.parametrize(("at", "alpha"), [(0.0, 0.1), (1e6, 0.001)])
def test_labels_move_the_threshold_by_a_factor_of_ten(at: float, alpha: float) -> None:
    """Labels move the threshold by at most a factor of ten in p, and `bounded` says so."""
    anomalies = [at + 60.0 + i for i in range(5)]
    threshold = threshold_for(anomalies, [at + i for i in range(5)], beta=1.0)
    assert threshold.value == HUNDRED.threshold({"fpr": alpha}).value
    assert threshold.labels == {"anomaly": 5, "normal": 5, "needed": FEWEST, "bounded": 1}


@pytest.mark.parametrize(
    ("anomalies", "normals"),
    [([], []), ([9.0] * 9, [1.0, 2.0, 3.0, 4.0, 5.0]), ([], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
)
def test_too_few_labels_leave_the_threshold_at_one_percent(
    anomalies: list[float], normals: list[float]
) -> None:
    """With too few different scores of a kind the threshold is that of 1 %, and it says so."""
    threshold = threshold_for(anomalies, normals, miss=10.0, false_alarm=1.0)
    asked = HUNDRED.threshold({"fpr": 0.01})
    assert (threshold.value, threshold.alpha, threshold.calibration) == (
        asked.value, 0.01, "insufficient",
    )  # fmt: skip
    assert threshold.labels is not None
    assert threshold.labels["anomaly"] == len(set(anomalies))


def test_a_version_scores_the_labels_itself() -> None:
    """The version's own scores of the labels decide; training works without labels, too."""
    X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    policy = {"labels": {"beta": 1.0}}
    config = Config(model=Model(epochs=2, hidden=(8,), latent=1), threshold=policy)
    version = train(None, X, config)
    assert version.threshold == version.threshold_for({"fpr": 0.01}).value
    assert Version.from_bytes(version.to_bytes()).config.threshold == policy
    far = X[:8] + 9.0
    labels = Labels(np.concatenate([far, X[:8]]), np.arange(16) < 8)
    threshold = version.threshold_for(policy, labels)
    assert version.score(X[:8]).max() < threshold.value < version.score(far).min()
    assert threshold.value == representable(np.array([threshold.value]))[0]
