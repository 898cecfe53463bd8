"""Rows that a person labelled normal are learned, even if they are few."""

import numpy as np
import pytest

from models import Config, Model, VectorError, Version, train
from models.context import Context, derive
from models.decisions.evidence import gather
from models.decisions.gate import gate
from models.parts.calibration import Calibration
from models.parts.statistics import auroc
from models.training import labelled_rows
from tests.models.training.code_table import CodeTable

CONFIG = Config(model=Model(epochs=40))


@pytest.mark.parametrize(
    ("n", "labelled", "w_new"), [(1000, 2, 0.2), (1000, 58, 0.2), (300, 58, 1.0), (5000, 50, 0.5)]
)
def test_labelled_rows_are_at_most_a_fifth_of_the_training(
    n: int, labelled: int, w_new: float
) -> None:
    """All copies together are at most a fifth of the training, and at most half of the new rows."""
    times = 1 + labelled_rows.copies(n, labelled, w_new)
    share = labelled * times / (n + labelled * (times - 1))
    assert w_new * share <= max(0.2, w_new * labelled / n) + 1e-9
    assert share <= 0.5
    assert share > 2 * labelled / n or times == 1


ODD = np.array([[6.0, 6.2, -5.0, 5.0], [6.3, 6.0, -5.2, 4.8]], np.float32)
ELSEWHERE = ODD * np.array([1.0, -1.0, -1.0, -1.0], np.float32)


def normals(n: int, seed: int) -> np.ndarray:
    """Return normals (n, 4) whose first two features are nearly equal."""
    rows = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]
    return rows


@pytest.fixture(scope="module", params=[CONFIG, Config(kind="mahalanobis")], ids=["vae", "mahal"])
def first(request: pytest.FixtureRequest) -> Version:
    """Return a version that has learned 1,000 normals and alarms on the rows ODD."""
    version = train(None, normals(1000, 0), request.param)
    assert version.is_anomaly(ODD).all()
    return version


def test_two_labelled_rows_among_others_stop_alarming(first: Version) -> None:
    """Two labelled rows among 500 others stop alarming; rows far away elsewhere still alarm."""
    taught = train(
        first, np.concatenate([normals(500, 1), ODD]), first.config, vouched=np.arange(502) >= 500
    )
    assert not taught.is_anomaly(ODD).any()
    assert taught.is_anomaly(ELSEWHERE).all()
    assert taught.is_anomaly(normals(2000, 2)).mean() < 0.03


def test_labelled_rows_alone_are_enough(first: Version) -> None:
    """Two labelled rows, or 58, are learned without other rows; without labels two are refused."""
    rng = np.random.default_rng(3)
    many = (ODD[0] + 0.1 * rng.normal(size=(58, 4))).astype(np.float32)
    for rows in (ODD, many):
        taught = train(first, rows, first.config, vouched=np.ones(len(rows), bool))
        assert not taught.is_anomaly(rows).any()
        assert taught.is_anomaly(ELSEWHERE).all()
        assert taught.is_anomaly(normals(2000, 2)).mean() < 0.03
        assert (taught.lineage.n_new, taught.lineage.learned) == (len(rows), 1000 + len(rows))
    with pytest.raises(VectorError, match="a training needs 32"):
        train(first, ODD, first.config)


def test_a_labelled_regime_is_learned_like_any_other(first: Version) -> None:
    """Of 400 labelled rows of a regime few alarm, and no more of the other normals than before."""
    rng = np.random.default_rng(4)
    regime = (ODD[0] + 0.3 * rng.normal(size=(400, 4))).astype(np.float32)
    taught = train(first, regime, first.config, vouched=np.ones(400, bool))
    assert taught.is_anomaly(regime).mean() < 0.05
    assert taught.is_anomaly(normals(2000, 2)).mean() < 0.03


@pytest.mark.parametrize("beside", [0, 500])
def test_labelled_rows_do_not_make_other_values_usual(beside: int) -> None:
    """After ten labelled rows, alone or with others, the trees still know which pairs are usual."""
    table = CodeTable()
    config = Config(model=Model(latent=3, hidden=(16,), epochs=3))
    version = train(None, table.rows(3000), config)
    normals, mixed = table.rows(1000), table.mixed(1000)
    before = auroc(version.score(normals), version.score(mixed))
    for _ in range(2):
        fresh = table.rows(300)
        labelled = fresh[np.argsort(-version.score(fresh))[:10]]
        rows = np.concatenate([table.rows(beside), labelled])
        version = train(version, rows, config, vouched=np.arange(len(rows)) >= beside)
        assert not version.is_anomaly(labelled).any()
    assert auroc(version.score(normals), version.score(mixed)) > before - 0.05
    assert version.is_anomaly(mixed).mean() > 0.7


def kiln(n: int, burst: slice, seed: int) -> np.ndarray:
    """Return n rows of a kiln whose four features follow one load; a burst raises all four."""
    rng = np.random.default_rng(seed)
    load = np.zeros(n)
    for t in range(1, n):
        load[t] = 0.98 * load[t - 1] + 0.2 * rng.normal()
    noise = rng.normal(size=(n, 4)) * [2.0, 0.5, 0.3, 1.0]
    rows = load[:, None] * [12.0, 3.0, 0.8, 0.0] + noise
    size = rng.uniform(3.0, 10.0, (burst.stop - burst.start, 4)) * rng.choice([-1.0, 1.0], 4)
    rows[burst] += size * rows[: burst.start].std(axis=0)
    return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("score", "seed"), [("auto", 3), ("auto", 5), ("auto", 9), ("auto+regime", 9)]
)
def test_a_burst_far_out_in_all_features_stops_alarming(score: str, seed: int) -> None:
    """Rows that are rare by every part of the score stop alarming; opposite rows still alarm."""
    context = Context(over=10)
    rows = kiln(2330, slice(2300, 2322), seed)
    config = Config(context=context, score=score)
    features = derive(context, rows, np.ones(4, bool)).features
    version = train(None, features[10:2000], config)
    burst = features[2300:2322]
    burst = burst[version.is_anomaly(burst)]
    taught = train(version, burst, config, vouched=np.ones(len(burst), bool))
    assert len(burst) >= 20
    assert not taught.is_anomaly(burst).any()
    assert taught.is_anomaly(-burst * [1, -1, 1, -1, 1, -1, 1, -1]).mean() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_labelled_rows_move_p_values_by_at_most_a_factor(seed: int) -> None:
    """No p-value grows by more than the factor, and a labelled row that may move stops alarming."""
    rng = np.random.default_rng(seed)
    plain = Calibration(np.sort(rng.gamma(2.0, size=2000)))
    labelled = plain.scores[-30:-2:3]
    taught = labelled_rows.calibrated_with(labelled, plain)
    before, after = plain.p_values(plain.scores), taught.p_values(plain.scores)
    assert (after <= 1.01 * labelled_rows.LARGEST_FACTOR * before).all()
    movable = plain.p_values(labelled) >= labelled_rows.LEAST_P / labelled_rows.LARGEST_FACTOR
    assert (taught.p_values(labelled[movable]) >= labelled_rows.LEAST_P).all()
    for scores in (plain.scores[:1000], plain.scores[-2:], plain.scores[:0]):
        assert np.array_equal(labelled_rows.calibrated_with(scores, plain).scores, plain.scores)


def test_without_labels_nothing_changes() -> None:
    """A mask without labelled rows gives the same version, bit for bit."""
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    config = Config(model=Model(epochs=3, hidden=(8,), latent=2))
    plain = train(None, X, config)
    assert train(None, X, config, vouched=np.zeros(200, bool)).to_bytes() == plain.to_bytes()
    assert plain.lineage.incidents.rows == 200


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_drawn_beside_labelled_ones_score_like_normals(seed: int) -> None:
    """A valve and a set point that never moved do not make the drawn rows alarm.

    The candidate is calibrated on these rows. The network draws values between open and closed.
    """
    rng = np.random.default_rng(seed)
    noise, level = rng.normal(size=(3000, 4)), np.zeros(3000)
    for i in range(1, 3000):
        level[i] = 0.97 * level[i - 1] + 0.3 * noise[i, 0]
    valve = (np.arange(3000) // 47 % 3 == 0).astype(float)
    pressure = 6 + 0.4 * valve + 0.15 * level + 0.05 * noise[:, 1]
    current = 12 + 2 * valve + 0.12 * level + 0.1 * noise[:, 2]
    heat = 55 + level + 0.3 * noise[:, 3]
    columns = [pressure, heat, current, valve, np.full(3000, 60.0)]
    rows = np.stack(columns, axis=1).round(2).astype(np.float32)
    context = Context(over=10)
    first = train(None, derive(context, rows).features[10:], Config(seed=seed))
    assert (first.sample(500, 1)[:, 4] == 60).all()
    leak = rows[-40:].copy()
    leak[-12:, 0] -= 1.5
    odd = derive(context, leak).features[-12:]
    assert first.is_anomaly(odd).all()
    taught = train(first, odd, first.config, vouched=np.ones(len(odd), bool))
    assert not taught.is_anomaly(odd).any()
    evidence = gather(taught, first, new=odd)
    assert evidence.new.candidate < 0.2
    assert gate(evidence).passed
