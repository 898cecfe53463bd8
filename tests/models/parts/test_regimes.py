from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from models import Config, Model, Version, train
from models.parts.regimes import Boundaries
from models.survey.survey import _numbers_of_new, _PreviousNumbers

CENTRES = {"summer": [20, 60], "winter": [0, 80]}
CONFIG = Config(model=Model(epochs=30))


def days(season: str, seed: int, n: int = 400) -> np.ndarray:
    """Return n days of a season: temperature and humidity."""
    return np.random.default_rng(seed).normal(CENTRES[season], [2, 5], (n, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def versions() -> list[Version]:
    """Learn summer, winter, and summer again."""
    made: list[Version] = []
    for seed, season in enumerate(("summer", "winter", "summer")):
        made.append(train(made[-1] if made else None, days(season, seed), CONFIG))
    return made


def test_a_new_regime_gets_the_next_number(versions: list[Version]):
    """Summer is 1 and stays 1 when its data is long gone; winter is 2."""
    assert [[r.number for r in v.regimes] for v in versions] == [[1], [1, 2], [1, 2]]
    for version in versions[1:]:
        assert (version.nearest_regime(days("summer", 9)) == 1).mean() > 0.98
        assert (version.nearest_regime(days("winter", 9)) == 2).mean() > 0.98


def test_the_lineage_counts_regimes_and_their_last_experience(versions: list[Version]):
    """The lineage counts the vectors of each regime and says which experience brought it last."""
    assert [[(r.size, r.seen) for r in v.regimes] for v in versions] == [
        [(400, 1)],
        [(400, 1), (400, 2)],
        [(800, 3), (400, 2)],
    ]
    assert [r.share for r in versions[2].regimes] == pytest.approx([2 / 3, 1 / 3])


def test_the_typical_vector_is_in_the_middle(versions: list[Version]):
    """The typical vector is near the centre, and is not a learned vector."""
    for regime, season in zip(versions[1].regimes, CENTRES, strict=True):
        assert np.abs((regime.typical - CENTRES[season]) / [2, 5]).max() < 1
        learned = np.concatenate([days(season, seed) for seed in (0, 1)])
        assert not (learned == regime.typical).all(axis=1).any()


def test_an_anomaly_has_no_regime(versions: list[Version]):
    """A vector above the threshold has the number 0, even if it is near a regime."""
    X = np.array([[20, 60], [0, 80], [20, 110]], np.float32)
    assert versions[1].regime_of(X).tolist() == [1, 2, 0]
    assert versions[1].nearest_regime(X)[2] in (1, 2)


def test_forgetting_is_measured_for_each_regime(versions: list[Version]):
    """Replay forgets nothing of summer; after finetuning, replayed summer vectors alarm."""
    kept = versions[1].regimes[0].about.alarms
    assert kept.more < 0.05
    assert versions[1].regimes[1].about.alarms is None
    config = Config(strategy="finetune", model=Model(epochs=60))
    lost = train(versions[0], days("winter", 1), config).regimes[0].about
    assert lost.alarms.candidate > 0.5
    assert lost.score_change > 1
    assert lost.replayed == 4000


def test_a_curve_is_kept_while_its_regime_is_away(versions: list[Version]):
    """Winter's curve is measured on winter's vectors, and the next version keeps it."""
    second, third = (v.regimes[1].about.curve for v in versions[1:])
    assert second == third
    assert versions[2].regimes[0].about.curve != versions[1].regimes[0].about.curve


def test_regimes_are_read_back_from_the_artifact(versions: list[Version]):
    """A version that is read back knows the same regimes."""
    back = Version.from_bytes(versions[1].to_bytes())
    X = np.concatenate([days("summer", 5), days("winter", 5)])
    assert (back.regime_of(X) == versions[1].regime_of(X)).all()
    assert [r.about for r in back.regimes] == [r.about for r in versions[1].regimes]


def test_regimes_of_an_older_release_come_from_its_draws(versions: list[Version]):
    """If a parent of an older release has no regimes, a child finds some in the parent's draws."""
    old = replace(versions[1].with_lineage(regimes=()), memory={})
    assert old.regimes == ()
    assert old.regime_of(np.array([[20, 60]], np.float32)).tolist() == [0]
    child = train(old, days("summer", 7), CONFIG)
    assert len(child.regimes) == 2
    assert child.regimes[0].number == 1


@pytest.mark.parametrize(("share", "valley", "new"), [
    (0.3, False, True), (0.1, True, True), (0.1, False, False), (0.01, True, False),
])  # fmt: skip
def test_a_mode_is_new_if_it_is_rare_or_separate(share: float, valley: bool, new: bool):
    """A very rare mode is new; a somewhat rare one only if valleys separate it from all others."""
    p = np.where(np.arange(150) < 100 * share, 0.01, 0.5)
    lineage = SimpleNamespace(last_regime=0)
    previous = SimpleNamespace(judge=lambda _: SimpleNamespace(p_values=p), lineage=lineage)
    before = _PreviousNumbers({1: None, 4: None}, np.array([1, 4]), np.repeat([4, 1, 1], 50))
    modes, separate = np.repeat([0, 1], [100, 50]), np.array([valley, False])
    numbers = _numbers_of_new(modes, previous, np.empty((150, 2), np.float32), separate, before)
    assert numbers.tolist() == np.repeat([5, 5, 1] if new else [4, 1, 1], 50).tolist()


def test_a_quiet_day_is_no_new_regime(versions: list[Version]):
    """A narrow part of summer at its edge, on which nothing alarms, is summer."""
    quiet = np.random.default_rng(5).normal([24, 60], [0.3, 0.7], (400, 2)).astype(np.float32)
    version = train(versions[2], quiet, CONFIG)
    assert [(r.number, r.size) for r in version.regimes] == [(1, 1200), (2, 400)]


@pytest.mark.thorough
def test_a_number_is_never_given_again(versions: list[Version]):
    """A number is never used again, even if its regime is no longer drawn."""
    forgetful = {"w_prev": 0.0, "w_new": 1.0}
    version, long = versions[1], Config(model=Model(epochs=300))
    for seed in range(7, 13):  # until one regime is no longer drawn; both are winter then
        version = train(version, days("winter", seed), long, forgetful)
        if len(version.regimes) == 1:
            break
    assert len(version.regimes) == 1
    autumn = np.random.default_rng(3).normal([10, 200], [2, 5], (400, 2)).astype(np.float32)
    assert [r.number for r in train(version, autumn, CONFIG).regimes][-1] == 3


def test_a_loose_threshold_makes_no_regimes():
    """The asked rate of alarms has no influence on which modes count as rare."""
    version = None
    for seed in range(3):
        version = train(version, days("summer", seed), replace(CONFIG, threshold={"fpr": 0.4}))
    assert [r.size for r in version.regimes] == [1200]


def test_an_invalid_flag_of_the_processor_causes_no_warning() -> None:
    """If the processor flags a product as invalid, a regime is chosen without a warning."""

    class Flagging:
        def hidden(self, x: np.ndarray) -> np.ndarray:
            return x

    weight = np.array([[np.inf, 1.0], [-np.inf, 1.0]], np.float32)
    boundaries = Boundaries(weight, np.zeros(2, np.float32), np.zeros((2, 1), np.float32))
    regimes = boundaries.nearest(Flagging(), np.ones((3, 2), np.float32))
    assert set(regimes) <= {0, 1}
    assert regimes.shape == (3,)
