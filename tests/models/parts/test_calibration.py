import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from models.arrays import Float64
from models.parts.calibration import Calibration, representable, severities
from models.parts.carried_calibration import carried, mixed, repeated
from models.parts.pareto_tail import peaks_over_threshold


@pytest.fixture
def hundred() -> Calibration:
    """Return the scores 1, 2, ..., 100."""
    return Calibration(np.arange(1.0, 101.0))


def test_p_is_the_share_of_normals_scoring_at_least_this_high(hundred: Calibration) -> None:
    """P is (1 + #{s_i >= s}) / (n + 1), with ties."""
    p = hundred.p_values(np.array([-5.0, 1.0, 50.0, 50.5, 100.0]))
    np.testing.assert_allclose(p * 101, [101, 101, 52, 51, 2])


def test_beyond_the_largest_normal_the_tail_falls_to_the_floor(hundred: Calibration) -> None:
    """Beyond the largest score p falls further, without a jump up, and never reaches zero."""
    p = hundred.p_values(np.array([100.0, 100.001, 150.0, 1e6, 3.4e38]))
    assert (np.diff(p) <= 0).all()
    assert p[1] == pytest.approx(1 / 101, rel=1e-3)
    assert p[-1] >= 1e-300


@given(st.lists(st.floats(-1e30, 1e30), min_size=8, max_size=60), st.floats(-3e38, 3e38))
def test_a_score_has_the_same_p_value_alone_and_among_others(
    scores: list[float], score: float
) -> None:
    """A score alone has the same p-value as among others, inside the calibration and beyond."""
    calibration = Calibration(np.sort(representable(np.array(scores))))
    for value in (score, *scores[:2]):
        expected = calibration.p_values(np.array([value]))[0]
        assert calibration.p_value(value) == pytest.approx(expected, rel=1e-9, abs=0.0)


@given(st.lists(st.floats(-1e30, 1e30), min_size=8, max_size=60), st.floats(1e-6, 0.5))
def test_the_threshold_is_the_smallest_score_that_is_rare_enough(
    scores: list[float], alpha: float
) -> None:
    """p(threshold) <= alpha, and the float32 just below it is not rare enough."""
    calibration = Calibration(np.sort(representable(np.array(scores))))
    threshold = calibration.threshold({"fpr": alpha}).value
    below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
    assert float(np.float32(threshold)) == threshold
    if np.isfinite(below) and abs(threshold) < 3.4e38:
        assert calibration.p_values(np.array([threshold]))[0] <= alpha
        assert calibration.p_values(np.array([below]))[0] > alpha


def test_policies_with_the_same_meaning_give_the_same_threshold(hundred: Calibration) -> None:
    """Quantile q equals fpr 1 - q; the alpha of a fixed value is the p-value there."""
    fpr = hundred.threshold({"fpr": 0.05})
    assert hundred.threshold({"quantile": 0.95}).value == fpr.value
    assert hundred.threshold({"value": 50.0}).alpha == pytest.approx(52 / 101)


@pytest.mark.parametrize(
    ("n", "alpha", "says"),
    [(99, 0.01, "exact"), (98, 0.01, "insufficient"), (500, 0.001, "extrapolated")],
)
def test_the_calibration_says_when_normals_are_too_few(n: int, alpha: float, says: str) -> None:
    """With fewer than 1/alpha - 1 normals no conformal p-value reaches alpha, and it says so."""
    assert Calibration(np.arange(float(n))).threshold({"fpr": alpha}).calibration == says


def test_the_fitted_tail_is_right_for_known_distributions() -> None:
    """Extrapolated a thousandfold, an exponential tail is right within a factor of ten."""
    rng = np.random.default_rng(0)
    p = Calibration(np.sort(rng.exponential(size=2000))).p_values(np.array([-np.log(1e-6)]))
    assert 1e-7 < p[0] < 1e-5


@pytest.mark.parametrize("gamma", [0.3, 0.8, 1.2])
def test_a_threshold_beyond_the_scores_is_right_for_heavy_tails(gamma: float) -> None:
    """A rate of 1e-4 from a thousand scores is met within a factor of two, by the median of 60."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(60):
        calibration = Calibration(np.sort(rng.random(1_000) ** -gamma))
        shares.append(calibration.threshold({"fpr": 1e-4}).value ** (-1.0 / gamma))
    assert 0.5e-4 < np.median(shares) < 2e-4


def test_equal_scores_still_have_a_tail() -> None:
    """Constant scores can be calibrated: a score further above has a smaller p-value."""
    p = Calibration(np.zeros(50)).p_values(np.array([0.0, 1e-3, 1.0]))
    assert p[0] == 1.0
    assert p[1] > p[2] > 0


def test_severity_is_one_at_alpha_and_two_at_its_square() -> None:
    """Severity is log(p) / log(alpha)."""
    np.testing.assert_allclose(severities(np.array([1.0, 0.01, 1e-4]), 0.01), [0, 1, 2])


def test_a_calibration_is_carried_by_its_gap_to_generated_scores() -> None:
    """If the new version raises every score by 3, the carried calibration rises by 3."""
    rng = np.random.default_rng(1)
    real = np.sort(rng.normal(2, 1, 500))
    generated = rng.normal(0, 1, 2000)
    np.testing.assert_allclose(carried(real, generated, generated + 3), real + 3, atol=1e-9)


def test_a_calibration_is_carried_if_scores_change_their_order() -> None:
    """If each score changes at random, the rate is held; the method by quantiles gives 3 %."""
    rng = np.random.default_rng(2)
    real, generated = np.sort(rng.normal(0, 1, 5000)), rng.normal(0, 2, 4000)

    def changed_scores(scores: Float64) -> Float64:
        return scores + rng.normal(1, 2, len(scores))

    threshold = np.quantile(carried(real, generated, changed_scores(generated)), 0.99)
    alarm_rate = (changed_scores(rng.normal(0, 1, 200_000)) >= threshold).mean()
    assert alarm_rate == pytest.approx(0.01, abs=0.003)


@given(st.integers(1, 40), st.integers(3, 40))
def test_as_many_scores_are_carried_as_there_were(calibrated: int, generated: int) -> None:
    """As many scores are carried as there were, ascending and finite, even if there are few."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, generated))
    scores = carried(np.sort(rng.normal(size=calibrated)), before, after)
    assert len(scores) == calibrated
    assert np.isfinite(scores).all()
    assert (np.diff(scores) >= 0).all()


def test_old_and_new_scores_are_mixed_in_their_ratio() -> None:
    """Weights of three to one give numbers of three to one, and no score is used twice."""
    calibration = mixed(np.zeros(1000), np.ones(1000), share_old=0.75)
    assert (calibration.scores == 0).sum() == 1000
    assert (calibration.scores == 1).sum() == 333


def test_a_few_scores_with_a_large_share_are_repeated() -> None:
    """Fifty scores that count as three tenths are repeated; enough of them are not."""
    old, few = np.linspace(0.0, 1.0, 800), np.linspace(2.0, 3.0, 50)
    calibration = mixed(old, repeated(few, 0.3, len(old)), share_old=0.7)
    assert (calibration.scores <= 1.0).sum() >= 799
    assert (calibration.scores >= 2.0).mean() == pytest.approx(0.3, abs=0.001)
    # The interval is as wide as that of 50 scores, however often they are repeated.
    assert calibration.false_alarm_rate(2.95).high - calibration.false_alarm_rate(2.95).rate > 0.01
    assert len(repeated(few, 0.01, 800)) == len(repeated(few, 0.0, 800)) == 50


def test_the_rate_asked_for_is_held_on_fresh_normals() -> None:
    """Averaged over 200 calibrations of 300 normals, 1 % asked gives 1 %."""
    rng = np.random.default_rng(3)
    alarms = []
    for _ in range(200):
        calibration = Calibration(np.sort(rng.normal(size=300)))
        alarms.append((rng.normal(size=2000) >= calibration.threshold({"fpr": 0.01}).value).mean())
    assert np.mean(alarms) == pytest.approx(0.01, abs=0.002)


def test_peaks_over_threshold_is_the_papers_formula() -> None:
    """On exact quantiles of Pareto and exponential tails, z_q is the true quantile far beyond."""
    q = (np.arange(20_000) + 0.5) / 20_000
    gamma, sigma = 0.2, 3.0
    pareto = sigma / gamma * ((1 - q) ** -gamma - 1)
    true = sigma / gamma * (1e-6**-gamma - 1)
    assert peaks_over_threshold(pareto, 1e-6) == pytest.approx(true, rel=0.1)
    assert peaks_over_threshold(-np.log(1 - q), 1e-6) == pytest.approx(-np.log(1e-6), rel=0.05)


def test_the_pot_policy_gives_the_p_value_at_its_threshold(hundred: Calibration) -> None:
    """The policy's alpha is the conformal p-value at its threshold; the kind is `extrapolated`."""
    threshold = hundred.threshold({"pot": 0.05})
    assert threshold.value == pytest.approx(90 + 5.5 * np.log(2))
    assert threshold.alpha == hundred.p_values(np.array([threshold.value]))[0]
    assert threshold.calibration == "extrapolated"


@pytest.mark.parametrize(("n", "k"), [(10, 0), (10, 10), (200, 2), (2_000, 20), (20_000, 9_000)])
def test_the_held_rate_has_the_interval_of_clopper_and_pearson(n: int, k: int) -> None:
    """The interval equals the one from quantiles of the beta distribution."""
    interval = Calibration(np.arange(float(n))).false_alarm_rate(n - k)
    assert interval.rate == k / n
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
