import numpy as np
import pytest

from models.drift.finding import MixFinding
from models.drift.regimes import LearnedRegime, RegimeTest
from models.drift.state import state_of

KNOWN = (
    LearnedRegime(1, 0.5, recent=False),
    LearnedRegime(2, 0.4, recent=True),
    LearnedRegime(3, 0.1, recent=True),
)


def finding_on(*counts: int) -> MixFinding:
    """Return the finding for counts of anomalies and of three regimes."""
    test = RegimeTest(KNOWN)
    test.update(np.array(counts))
    return test.finding()


def test_the_learned_mix_is_no_drift():
    """Shares as learned have distance 0; a regime that returned after an absence is named."""
    finding = finding_on(10, 500, 400, 100)
    assert (finding.statistic, finding.alarm) == (0.0, False)
    assert finding.none == pytest.approx(10 / 1010, abs=1e-6)
    assert [regime.state for regime in finding.known] == ["returning", "present", "present"]


def test_another_mix_has_its_total_variation():
    """If half the mass moved, the total variation is 0.5 and regime 3 is named as absent."""
    finding = finding_on(0, 1000, 0, 0)
    assert finding.statistic == 0.5
    assert finding.alarm
    assert [regime.state for regime in finding.known] == ["returning", "absent", "absent"]


def test_few_rows_give_no_share_and_no_alarm():
    """With fewer than a hundred rows there is neither a share nor an alarm."""
    finding = finding_on(0, 99, 0, 0)
    assert not finding.alarm
    assert finding.none is None
    assert {regime.state for regime in finding.known} == {"unknown"}


def test_chance_alone_does_not_alarm():
    """Of 1,000 samples of 200 rows from the learned mix none alarms."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(200, [0.5, 0.4, 0.1], size=1000)
    assert not any(finding_on(0, *draw).alarm for draw in draws.tolist())


def test_counts_cover_two_windows_and_survive_a_restart():
    """The test covers two windows of a thousand rows; counts of another version are left out."""
    test = RegimeTest(KNOWN)
    for _ in range(3):
        test.update(np.array([0, 1000, 0, 0]))
    for _ in range(2):
        test.update(np.array([0, 500, 400, 100]))
    test.update(np.array([1, 2]))
    assert test.finding().statistic == 0.0
    again = RegimeTest(KNOWN)
    again.restore(test.to_dict())
    assert again.finding() == test.finding()


@pytest.mark.parametrize(
    ("scores_moved", "burst", "inputs_moved", "state"),
    [
        (True, False, False, "known_regime"),
        (True, False, True, "known_regime"),
        (False, False, False, "known_regime"),
        (True, True, True, "new_regime"),
        (False, True, False, "degraded"),
    ],
)
def test_another_mix_explains_scores_but_no_burst(
    scores_moved: bool, burst: bool, inputs_moved: bool, state: str
):
    """A changed mix explains moved scores, so nothing is to be learned; a burst still alarms."""
    reached = state_of(
        scores_moved=scores_moved, inputs_moved=inputs_moved, burst=burst, mix_moved=True
    )
    assert reached == state
