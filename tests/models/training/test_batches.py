"""The rows of each step of an epoch."""

from itertools import islice

import numpy as np
import pytest
from scipy.signal import lfilter

from models import Config, Model, Version
from models.arrays import Array
from models.strategies.past import Past, past_of
from models.training.batches import batches
from models.training.plan import Outputs, Plan, plan
from models.training.runs_of_rows import LONG_RUNS, RUNS, SHORTEST, folds_of_runs


def planned(previous: Version, past: Past, x: Array, config: Config) -> Plan:
    """Return the plan for x with the version `previous`."""
    return plan(previous, past, x, config, Outputs("gaussian"), {"w_prev": 0.75, "w_new": 0.25})


def test_half_of_a_batch_has_answers_of_the_previous_version(first: Version, blob: Array) -> None:
    """Half of a batch has the previous version's answers, and no old row comes twice."""
    config = Config(model=Model(targets="soft", batch_size=32))
    past, x = past_of(first, config), first.scaler.transform(blob)
    chosen = planned(first, past, x, config)
    steps = batches(chosen, past, x, np.random.default_rng(0))
    olds = []
    for batch, n_prev, answers in islice(steps, 200):
        assert answers is not None
        assert answers.weight == n_prev / len(answers.mean)
        assert len(answers.mean) == (batch.shape[1] + 1) // 2 < n_prev
        old = batch[0, :n_prev].numpy()
        mean, _ = first.network.encode(old[: len(answers.mean)])
        np.testing.assert_allclose(answers.mean, mean, atol=1e-5)
        olds.append(old)
    together = np.concatenate(olds)
    assert len(np.unique(together, axis=0)) == len(together)


def test_without_a_teacher_there_are_old_rows_and_no_answers(first: Version, blob: Array) -> None:
    """Without a teacher there are old rows in the ratio of the weights, and no answers."""
    config = Config(model=Model(targets="hard", batch_size=32))
    past, x = past_of(first, config), first.scaler.transform(blob)
    chosen = planned(first, past, x, config)
    batch, n_prev, answers = next(batches(chosen, past, x, np.random.default_rng(0)))
    assert answers is None
    assert n_prev / batch.shape[1] == pytest.approx(0.75, abs=0.02)


def test_every_network_leaves_its_own_fold_out() -> None:
    """Every network leaves out its own fold; with `+regime` the version's own leaves out none."""
    x = np.arange(1000, dtype=np.float32)[:, None]
    chosen = plan(None, Past(), x, Config(score="elbo+regime"), Outputs("gaussian"), None)
    sizes = np.bincount(chosen.folds)
    assert sizes[0] == 0
    assert sizes[1:] == pytest.approx([250] * 4, abs=3)
    epoch = islice(batches(chosen, Past(), x, np.random.default_rng(0)), 8)
    seen = np.concatenate([batch[..., 0] for batch, *_ in epoch], axis=1)  # (5, 1000)
    for m in range(5):
        rows = set(seen[m].astype(int).tolist())
        assert rows == set(range(1000)) - set(np.flatnonzero(chosen.folds == (m or -1)).tolist())


@pytest.mark.parametrize(
    ("n", "learned", "folds"),
    [(500, 0, 4), (1_200, 0, 4), (1_500, 0, 3), (2_000, 0, 2), (2_000, 2_000, 1), (900, 1_800, 2)],
)
def test_the_more_rows_the_fewer_networks_calibrate(n: int, learned: int, folds: int) -> None:
    """Each network leaves a quarter out; 1,000 scores suffice, and those of the past count."""
    x = np.arange(n, dtype=np.float32)[:, None]
    chosen = plan(None, Past(learned=learned), x, Config(), Outputs("gaussian"), None)
    sizes = np.bincount(chosen.folds, minlength=5)
    assert sizes[1:] == pytest.approx([n / 4] * folds + [0] * (4 - folds), abs=3)
    assert chosen.networks == 1 + folds


def test_held_out_rows_are_in_no_batch() -> None:
    """Of many vectors a fifth is held out of the only network and is in no batch."""
    x = np.arange(5000, dtype=np.float32)[:, None]
    chosen = plan(None, Past(), x, Config(), Outputs("gaussian"), None)
    steps = -(-4000 // chosen.batch_size)
    epoch = islice(batches(chosen, Past(), x, np.random.default_rng(0)), steps)
    seen = np.concatenate([batch[0, :, 0] for batch, *_ in epoch])
    assert sorted(seen.astype(int).tolist()) == np.flatnonzero(chosen.folds == 0).tolist()
    assert len(seen) == 4000


def test_a_fold_is_contiguous_runs_of_rows() -> None:
    """A fold is contiguous runs of rows, from every part of the experience."""
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    folds = folds_of_runs(x, 4, np.random.default_rng(1))
    ends = np.flatnonzero(np.diff(folds)) + 1
    assert 10 <= len(ends) <= 4 * RUNS - 1
    for part in np.array_split(folds, RUNS):
        assert np.bincount(part, minlength=4) == pytest.approx([50] * 4, abs=2)


def test_a_fold_of_rows_that_change_slowly_is_two_long_runs() -> None:
    """Slow rows are held out in longer runs. Rows that are merely sorted by regime are not."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(600, 4)).astype(np.float32)
    slow = lfilter([0.3], [1.0, -0.95], noise, axis=0).astype(np.float32)
    by_regime = noise + 10 * np.repeat(rng.normal(size=(12, 4)), 50, axis=0).astype(np.float32)

    def runs(x: Array) -> int:
        return int((np.diff(folds_of_runs(x, 4, np.random.default_rng(1))) != 0).sum()) + 1

    assert runs(slow) <= 4 * LONG_RUNS < runs(noise)
    day = 4.0 * np.sin(np.linspace(0.0, 24.0, 6_000))
    assert runs(np.round(day)[:, None].astype(np.float32)) <= 4 * LONG_RUNS
    assert runs(by_regime) >= runs(noise)


@pytest.mark.parametrize("distance", [3, 10])
def test_no_fold_holds_out_a_whole_short_regime(distance: int) -> None:
    """Of forty regimes of 400 rows in order, a run holds out only a part."""
    rng = np.random.default_rng(0)
    centres = np.repeat(distance * rng.normal(size=(40, 4)), 400, axis=0)
    x = (centres + rng.normal(size=(16_000, 4))).astype(np.float32)
    folds = folds_of_runs(x, 5, np.random.default_rng(1))
    lengths = np.diff(np.flatnonzero(np.diff(folds)))
    assert SHORTEST <= lengths.min() < 200


def test_every_fold_has_rows_of_a_short_regime_at_the_end() -> None:
    """Of forty rows of another regime after a thousand, each fold has a quarter."""
    x = np.random.default_rng(0).normal(size=(1_040, 4)).astype(np.float32)
    x[1_000:] += 6.0
    folds = folds_of_runs(x, 4, np.random.default_rng(1))
    assert np.bincount(folds[1_000:], minlength=4).tolist() == [10] * 4


def test_a_short_stretch_whose_rows_are_alike_is_not_divided() -> None:
    """Rows that are like those a few rows before would have near copies among the learned rows."""
    white = np.random.default_rng(0).normal(size=(4_009, 4))
    x = np.stack([np.convolve(column, np.full(10, 0.3), "valid") for column in white.T], axis=1)
    x[2_000:2_075] += 6.0
    folds = folds_of_runs(x.astype(np.float32), 4, np.random.default_rng(1))
    assert len(set(folds[2_000:2_075].tolist())) == 1


def test_equal_rows_share_a_fold() -> None:
    """Equal rows share a fold: 100 rows that come 50 times each, in any order."""
    rng = np.random.default_rng(0)
    row_of = rng.permutation(np.repeat(np.arange(100), 50))
    folds = folds_of_runs(rng.normal(size=(100, 4)).astype(np.float32)[row_of], 5, rng)
    assert all(len(set(folds[row_of == row].tolist())) == 1 for row in range(100))
    assert np.bincount(folds) == pytest.approx([1000] * 5, rel=0.25)


def test_a_common_row_is_in_every_fold() -> None:
    """A row that is a tenth of all rows is in every fold."""
    x = np.random.default_rng(0).integers(3, size=(500, 2)).astype(np.float32)
    folds = folds_of_runs(x, 5, np.random.default_rng(1))
    rows, row_of = np.unique(x, axis=0, return_inverse=True)
    assert all(len(set(folds[row_of.ravel() == row].tolist())) == 5 for row in range(len(rows)))
