import numpy as np
import pytest
from msgspec.structs import replace as changed

from models.drift.state import Baseline, DriftTests, Sample, state_of

EDGES = np.array([-1.0, -0.3, 0.3, 1.0])


def count(X: np.ndarray) -> np.ndarray:
    """Return (d, 5) histogram counts of X (n, d)."""
    return np.stack(
        [np.bincount(np.searchsorted(EDGES, column), minlength=5) for column in X.T]
    ).astype(np.int64)


class Traffic:
    """A detector whose score is the norm of a standard normal vector of three features."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.calibration = np.sort(self.score(self.rng.normal(size=(1000, 3))))
        reference = count(self.rng.normal(size=(1000, 3)))
        self.baseline = Baseline(
            "u1", 3, self.calibration, reference / 1000, np.zeros(3), 1000, ("a", "b", "c"), 0.01,
            threshold=float(self.calibration[-10]),
        )  # fmt: skip

    @staticmethod
    def score(X: np.ndarray) -> np.ndarray:
        return np.asarray((X**2).sum(axis=1))

    def sample(self, X: np.ndarray) -> Sample:
        scores = self.score(X)
        above = len(self.calibration) - np.searchsorted(self.calibration, scores)
        p_values = (1 + above) / (len(self.calibration) + 1)
        return Sample(scores, p_values, int((p_values <= 0.01).sum()), len(X), count(X))

    def normal(self, n: int = 200) -> Sample:
        return self.sample(self.rng.normal(size=(n, 3)))


@pytest.mark.parametrize(
    ("scores_moved", "inputs_moved", "burst", "state"),
    [
        (False, False, False, "none"),
        (False, False, True, "degraded"),
        (False, True, False, "known_regime"),
        (False, True, True, "new_regime"),
        (True, False, False, "new_regime"),
        (True, False, True, "degraded"),
        (True, True, False, "new_regime"),
        (True, True, True, "new_regime"),
    ],
)
def test_each_combination_of_findings_has_its_state(
    scores_moved: bool, inputs_moved: bool, burst: bool, state: str
):
    """Each of the eight findings has one state."""
    assert state_of(scores_moved=scores_moved, inputs_moved=inputs_moved, burst=burst) == state


def test_normal_traffic_is_no_drift():
    """Traffic like the calibration makes no test alarm."""
    traffic = Traffic(0)
    drift = DriftTests(traffic.baseline)
    for _ in range(40):
        drift.update(traffic.normal())
        verdict = drift.verdict()
        assert verdict.state == "none"
    assert verdict.version == 3
    assert not verdict.statistics.martingale.alarm
    assert not verdict.statistics.adwin.alarm
    assert len(verdict.statistics.features) == 3


def test_a_shifted_input_is_a_new_regime():
    """A moved feature that raises the scores makes all four tests alarm and is named first."""
    traffic = Traffic(1)
    drift = DriftTests(traffic.baseline)
    for _ in range(10):
        drift.update(traffic.normal())
    for _ in range(5):
        X = traffic.rng.normal(size=(200, 3))
        X[:, 1] += 2.5
        drift.update(traffic.sample(X))
    verdict = drift.verdict()
    assert verdict.state == "new_regime"
    statistics = verdict.statistics
    assert statistics.martingale.alarm
    assert statistics.adwin.alarm
    assert statistics.anomalies.alarm
    assert statistics.features[0].feature == "b"
    assert statistics.features[0].alarm


def test_scattered_anomalies_are_degradation():
    """A burst of scattered anomalies, while the other rows stay, is degradation."""
    traffic = Traffic(2)
    drift = DriftTests(traffic.baseline)
    for _ in range(5):
        X = traffic.rng.normal(size=(200, 3))
        X[:20] += traffic.rng.choice([-6.0, 6.0], size=(20, 3))
        drift.update(traffic.sample(X))
    assert drift.verdict().state == "degraded"


def burst(traffic: Traffic, n: int = 20) -> Sample:
    """Return 200 rows of which `n` are anomalies of one kind."""
    X = traffic.rng.normal(size=(200, 3))
    X[:n] += 4.0
    return traffic.sample(X)


def test_a_dismissed_incident_ends_degradation():
    """Rows of a dismissed incident are no burst, nor are later rows like them; others are."""
    traffic = Traffic(2)
    drift = DriftTests(traffic.baseline)
    drift.attribute({}, set())
    for _ in range(5):
        drift.update(traffic.normal())
    first, second, third = (burst(traffic, n) for n in (60, 60, 80))
    drift.update(first)
    assert drift.attribute({"i1": first.anomalies}, set()) is False
    assert drift.verdict().state == "degraded"
    assert drift.attribute({}, {"i1"})
    assert drift.verdict().state == "none"
    drift = DriftTests.from_bytes(traffic.baseline, drift.to_bytes())  # after a restart
    drift.update(second)
    drift.attribute({"i1": second.anomalies}, {"i1"})  # they resemble the dismissed incident
    assert drift.verdict().state == "none"
    drift.update(third)
    drift.attribute({"i3": third.anomalies}, {"i1"})
    assert drift.verdict().state == "degraded"
    assert drift.attribute({}, set())  # withdrawn: all of them count
    assert drift.verdict().statistics.anomalies.statistic > 0.15


def test_no_number_of_dismissals_hides_that_the_other_scores_moved():
    """Dismissals and rows like dismissed ones restart the martingale once, and not for ever."""
    traffic = Traffic(3)
    drift = DriftTests(traffic.baseline)
    drift.attribute({}, set())
    kinds: set[str] = set()
    for round_ in range(40):
        X = traffic.rng.normal(size=(200, 3))
        X[:4] += 4.0
        if round_ >= 10:  # the other rows move too
            X[4:] *= 1.25
        sample = traffic.sample(X)
        drift.update(sample)
        kinds |= {f"i{round_}"}
        drift.attribute({f"i{round_}": 4}, kinds)
        drift = DriftTests.from_bytes(traffic.baseline, drift.to_bytes())  # after a restart
        if round_ == 9:
            assert not drift.verdict().statistics.martingale.alarm
    assert drift.verdict().statistics.martingale.alarm


def test_an_old_dismissal_hides_no_later_burst():
    """An incident whose rows left the windows excuses nothing when it is dismissed."""
    traffic = Traffic(5)
    drift = DriftTests(traffic.baseline)
    drift.update(burst(traffic, 60))
    drift.attribute({"i1": 60}, set())
    for _ in range(6):
        drift.update(traffic.normal())
    drift.update(burst(traffic, 90))
    drift.attribute({"i2": 90}, {"i1"})
    assert drift.verdict().statistics.anomalies.alarm


def test_a_narrower_known_input_is_a_known_regime():
    """An input that moved to a known place with unchanged scores needs no learning."""
    traffic = Traffic(3)
    drift = DriftTests(traffic.baseline)
    for _ in range(5):
        X = traffic.rng.normal(size=(200, 3))
        X[:, 0] = np.abs(X[:, 0])  # this does not change the norm
        drift.update(traffic.sample(X))
    assert drift.verdict().state == "known_regime"


def test_an_alarm_ends_when_the_drift_does():
    """The alarm lasts during the drift, and ends after 2,000 scores without drift."""
    traffic = Traffic(4)
    drift = DriftTests(traffic.baseline)
    for _ in range(5):
        drift.update(traffic.sample(traffic.rng.normal(0, 2, size=(200, 3))))
    for _ in range(4):
        drift.update(traffic.normal())
    assert drift.verdict().statistics.martingale.alarm
    for _ in range(11):
        drift.update(traffic.normal())
    assert drift.verdict().state == "none"


def test_the_drift_state_continues_after_a_restart():
    """State that is written and read back continues as if nothing had happened."""
    traffic = Traffic(5)
    whole = DriftTests(traffic.baseline)
    for _ in range(4):
        whole.update(traffic.normal())
    rest = DriftTests.from_bytes(traffic.baseline, whole.to_bytes())
    assert rest.verdict() == whole.verdict()
    sample = traffic.normal()
    whole.update(sample)
    rest.update(sample)
    martingale = rest.verdict().statistics.martingale
    assert martingale == whole.verdict().statistics.martingale


def test_another_version_starts_anew():
    """The state of another version is ignored, and so are bytes that are no state."""
    traffic = Traffic(6)
    drift = DriftTests(traffic.baseline)
    for _ in range(5):
        drift.update(traffic.sample(traffic.rng.normal(0, 3, size=(200, 3))))
    fresh = DriftTests(traffic.baseline).verdict()
    assert drift.verdict() != fresh
    moved = Baseline(**{**vars(traffic.baseline), "version": 4})
    assert DriftTests.from_bytes(moved, drift.to_bytes()).verdict() == changed(fresh, version=4)
    assert DriftTests.from_bytes(traffic.baseline, b"\xff not a state").verdict() == fresh
