"""The plan for learning one experience: it resolves each `auto` of a config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import Config
from models.model_config import Model
from models.parts.network import Shape
from models.steps import THOROUGH, auto_batch_size, auto_epochs
from models.strategies.past import Past
from models.training import mixing
from models.training.held_out import EqualRows
from models.version.version import Version

# The folds of at most FEW vectors. For more there are FOLDS - 1, so that a network learns 75 %.
FOLDS, FEW = 5, 400
# The folds for networks of more than LARGE parameters, whose folds are expensive.
FEW_FOLDS, LARGE = 2, 300_000
# Enough calibration scores: ten of them lie beyond 1 %, and more do not improve the rate. Scores of
# the past count, because they are carried over.
ENOUGH = 1_000
RUNS = 5  # contiguous runs of rows in each fold
LONG_RUNS = 2  # the same if rows change slowly
# Rows change slowly if the distance of rows at a lag, a quarter of a run, is below this share of
# the distance at 2.5 times the lag.
SLOW = 0.7
# Rows do not depend on earlier rows if these two distances differ by less than this ratio, and so
# do those at shorter lags. Then shorter runs are enough.
ALIKE = 0.95
# A jump is a step between the means of STEADY rows: it is more than JUMP times the median of all
# steps, and more than the share APART of the mean distance between rows.
STEADY, JUMP, APART = 25, 10.0, 0.1
SEEN = 0.1  # rows at a lag are compared if at least this share has such a row in its regime
SHORTEST = 100  # rows in a shortened run, so that it holds the windows that count false incidents
HELD_OUT = 0.2  # the share of new vectors held out from training if folds would cost too much
MOST_HELD_OUT = 4_000
LEAST_STEPS = 400  # fewer steps do not bring a network near its optimum, however few the vectors
SMALL = 100_000  # up to this many parameters a step is cheap, so there are THOROUGH times as many
REPLAY_STEPS = 3.0  # a large network's retraining takes at least this many times LEAST_STEPS
# The training regime `stable`: how many times smaller the batches are, how many times higher the
# first learning rate is, the factor of the rate with every experience, and the dropout.
SMALLER, HIGHER, DECAY, DROPOUT = 2, 2.0, 0.8, 0.1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one experience is learned.

    `new_rows` is the share of new vectors in a batch. It is 1 if nothing is replayed. Otherwise it
    is w_new, or more if the new vectors are few and novel to the previous version. `folds` (n,)
    says which network leaves out each vector: m >= 1 means network m, -1 network 0, which becomes
    the version, and 0 none.
    """

    shape: Shape
    w_prev: float
    w_new: float
    new_rows: float
    batch_size: int
    learning_rate: float
    dropout: float
    steps: int
    folds: NDArray[np.int64]
    seed: int

    @property
    def networks(self) -> int:
        """The number of networks: the candidate, and one for each fold."""
        return int(self.folds.max(initial=0)) + 1

    def left_out(self, network: int) -> NDArray[np.bool_]:
        """Return the mask (n,) of the vectors that the network leaves out."""
        return self.folds == (network or -1)


class Outputs(NamedTuple):
    """The outputs of a network's decoder: the likelihood's name, and the slots of each category."""

    likelihood: str
    categories: tuple[int, ...] = ()


def plan(
    previous: Version | None,
    past: Past,
    x: Array,
    config: Config,
    outputs: Outputs,
    weights: str | Mapping[str, float] | None,
) -> Plan:
    """Plan how to learn the scaled vectors x (n, d) on top of `past`."""
    n, d = x.shape
    model = config.network_choices
    before = past.grown or (previous.network if previous and past.warm else None)
    shape = _reaching(before.shape if before else _shape(d, model, outputs), x)
    policy = weights or config.weights
    w_prev, w_new = mixing.weights(policy, past.learned, n)
    seed = seed_of(config.seed, previous)
    rng = np.random.default_rng([seed, 1])
    # A hundred rows of fifty copies each count as a hundred, for calibration and for training.
    distinct = EqualRows.find(x).distinct if n <= 2 * MOST_HELD_OUT else n
    by_regime, enough = config.score.endswith("+regime"), ENOUGH * n / (past.learned + n)
    folds = _folds(x, distinct, _parameters(shape), by_regime, enough, rng)
    n_trained = int((folds >= 0).sum())
    distinct_trained = max(1, round(n_trained * distinct / n))
    new_rows = w_new if past.replays else 1.0
    if previous and past.replays and policy == "proportional":
        p_values = previous.calibration.p_values(previous.score_scaled(x))
        novel = float((p_values <= mixing.RARE).mean())
        new_rows = max(new_rows, mixing.least_new(novel, n))
    stable = model.regime == "stable"
    batch_size = model.batch_size or min(auto_batch_size(n_trained), n_trained)
    if stable and not model.batch_size:
        batch_size = max(1, batch_size // SMALLER)
    rows = _Rows(n_trained, distinct_trained, batch_size, new_rows)
    if model.epochs:
        steps = model.epochs * rows.steps_per_epoch(new_rows)
    else:
        has_past = bool(w_prev) or past.vectors is not None
        steps = _steps(rows, small=_parameters(shape) <= SMALL, has_past=has_past)
    learning_rate = model.learning_rate or _learning_rate(shape)
    if stable:
        learning_rate *= HIGHER * DECAY ** _experiences(previous)
    dropout = model.dropout or past.dropout or (DROPOUT if stable else 0.0)
    return Plan(
        shape, w_prev, w_new, new_rows, batch_size, learning_rate, dropout, steps, folds, seed
    )


class _Rows(NamedTuple):
    """The rows that a training learns from.

    `trained` new rows, of which `distinct` are distinct, come in batches of `batch_size`, each with
    the share `new_rows` of them.
    """

    trained: int
    distinct: int
    batch_size: int
    new_rows: float

    def steps_per_epoch(self, new_rows: float) -> int:
        """Return the steps that pass all new rows once, with the share `new_rows` in a batch."""
        return mixing.steps_per_epoch(self.trained, self.batch_size, new_rows)


def _steps(rows: _Rows, *, small: bool, has_past: bool) -> int:
    """Return the steps of a training, for a `small` network or not, with a past or without one.

    The budget counts vectors, old and new, and does not grow with the vectors learned before.
    Otherwise the thirtieth update would cost ten times the second. So if the share of new vectors
    in a batch is small, there are fewer epochs.
    """
    passes = THOROUGH if small else 1.0
    if has_past:  # a step then counts as a whole batch, or as all new vectors if they are fewer
        least = (passes if small else REPLAY_STEPS) * min(rows.batch_size, rows.trained)
    else:
        least = passes * rows.trained / rows.steps_per_epoch(1.0)
    budget = max(passes * auto_epochs(rows.distinct) * rows.distinct, LEAST_STEPS * least)
    per_epoch = rows.steps_per_epoch(rows.new_rows)
    return math.ceil(budget * per_epoch * rows.new_rows / rows.trained - 1e-9)


def _shape(d: int, model: Model, outputs: Outputs) -> Shape:
    """Return the shape of a first network for d numbers, from the config or from d."""
    width = int(np.clip(16 * math.ceil(2 * d / 16), 32, 400))
    latent = model.latent or int(np.clip(math.ceil(1.25 * math.sqrt(d)), 2, 20))
    hidden = model.hidden or (width, width)
    return Shape(d, latent, hidden, outputs.likelihood, categories=outputs.categories)


def _reaching(shape: Shape, x: Array) -> Shape:
    """Return the shape with its range widened to x, without the outermost 1 % of rows."""
    if shape.likelihood != "bernoulli":
        return shape
    low, high = np.quantile(x.min(axis=1), 0.01), np.quantile(x.max(axis=1), 0.99)
    return replace(shape, low=min(shape.low, float(low)), high=max(shape.high, float(high)))


def _parameters(shape: Shape) -> int:
    """Return the number of parameters of a network."""
    return sum(math.prod(size) for size in shape.tensors().values())


def _learning_rate(shape: Shape) -> float:
    """Return Adam's learning rate, which is lower for wide layers."""
    return float(np.clip(0.35 / max(shape.hidden), 1e-3, 1e-2))


def _folds(
    x: Array,
    distinct: int,
    parameters: int,
    by_regime: bool,
    enough: float,
    rng: np.random.Generator,
) -> Ints:
    """Return the `Plan.folds` of the rows of x (n, d).

    Each row is left out of one of the folds' networks. If these would cost too much, some rows are
    left out of network 0 instead. The number of folds follows from the number of `distinct` rows,
    and is no larger than `enough` calibration scores need. If normals are few, all are needed for
    training and for calibration, and their networks are cheap. A score `by_regime` needs several
    hundred calibration scores in every regime, from networks that learned nearly as much as the
    version.
    """
    n = len(x)
    if distinct <= FEW and parameters <= LARGE:
        return 1 + folds_of_runs(x, FOLDS, rng)
    if by_regime and n <= 2 * MOST_HELD_OUT:
        return 1 + folds_of_runs(x, FOLDS - 1, rng)
    if distinct <= 2_000 and parameters <= SMALL:
        fold_of = folds_of_runs(x, FOLDS - 1, rng)
        return np.where(fold_of * distinct < enough * (FOLDS - 1), fold_of + 1, 0)
    if distinct <= FEW:
        return 1 + folds_of_runs(x, FEW_FOLDS, rng)
    share = min(int(n * HELD_OUT), MOST_HELD_OUT) / n
    parts = max(2, round(1.0 / share))
    return np.where(folds_of_runs(x, parts, rng) == 0, -1, 0)


def folds_of_runs(x: Array, folds: int, rng: np.random.Generator) -> Ints:
    """Return the fold 0..folds-1 of each row of x (n, d): a few contiguous runs of rows per fold.

    Neighbours in time are alike. In folds drawn row by row, each held-out row would have a near
    copy among the learned rows, and the threshold would be too low. Equal rows go into one fold for
    the same reason. Common values (`EqualRows.common`) do not: such a value will come again, and a
    network that never saw it would score it too high.

    No fold holds out a whole regime: its runs lie in different parts of the rows, and a short
    regime in time has runs of every fold.
    """
    n = len(x)
    runs, regime = _runs(x, folds)
    copies = EqualRows.find(x)
    # A common row keeps its own place; other equal rows take the place of the first of them.
    place = np.where(copies.common, np.arange(n), copies.first)
    order = np.argsort(place, kind="stable")
    starts = np.r_[True, np.diff(place[order]) > 0]
    start = np.flatnonzero(starts)[np.cumsum(starts) - 1]  # of the row's equal rows
    _, first, regime, size = np.unique(
        regime[place[order]], return_index=True, return_inverse=True, return_counts=True
    )
    # Each regime has runs of every fold.
    times = np.maximum(1, np.round(runs * size / n).astype(np.int64))
    run = np.empty(n, np.int64)
    run[order] = (start - first[regime]) * (times * folds)[regime] // size[regime]
    run[order] += ((times.cumsum() - times) * folds)[regime]
    fold_of_run = np.concatenate([rng.permutation(folds) for _ in range(times.sum())])
    return fold_of_run[run]


def _runs(x: Array, folds: int) -> tuple[int, Ints]:
    """Return the number of runs of each fold of x (n, d), and the regime of each row, (n,).

    A held-out row lies on average a quarter of a run away from the learned rows. If it is still
    like them there, the runs are too short. A run that is longer than needed can hold out a whole
    regime, and the threshold would be too high for later rows of that regime. All rows that change
    slowly count as one regime, because a stretch between two jumps may not come again.
    """
    regime = _regimes_in_time(x)

    def distance(lag: int) -> float:
        """Return the median squared distance of rows at this lag in one regime; NaN if few are."""
        first = np.flatnonzero(regime[lag:] == regime[:-lag])
        squares = np.square(x[first + lag] - x[first]).sum(axis=1)
        return float(np.median(squares)) if len(first) >= SEEN * len(x) else math.nan

    quarter = max(1, len(x) // (4 * RUNS * folds))
    near, far = distance(quarter), distance(5 * quarter // 2)
    if near < ALIKE * far:
        return LONG_RUNS if near < SLOW * far else RUNS, np.zeros_like(regime)
    runs = RUNS
    while len(x) >= 2 * SHORTEST * runs * folds:
        # The comparison is false if the distance is NaN, because regimes are shorter than this lag.
        if distance(len(x) // (8 * runs * folds)) <= ALIKE * near:
            break
        runs *= 2
    # Only a regime that a run could hold out as a whole has runs of its own, and only if its rows
    # are not like each other a quarter of such a run apart.
    sizes = np.bincount(regime)
    lags = np.maximum(1, sizes // (4 * folds))
    own = sizes <= len(x) / (runs * folds)
    alike = [lag for lag in np.unique(lags[own]).tolist() if distance(lag) <= ALIKE * near]
    own &= ~np.isin(lags, alike)
    return runs, np.cumsum(np.diff(np.where(own[regime], regime + 1, 0), prepend=0) != 0)


def _regimes_in_time(x: Array) -> Ints:
    """Return for each row of x (n, d) the number of its stretch between two jumps, (n,)."""
    blocks = np.arange(len(x)) // STEADY
    means = np.add.reduceat(x, np.arange(0, len(x), STEADY)) / np.bincount(blocks)[:, None]
    steps = np.square(np.diff(means, axis=0)).sum(axis=1)
    least = APART * 2.0 * x.var(axis=0).sum()
    jumps = steps > max(least, JUMP * np.median(steps)) if len(steps) else np.zeros(0, bool)
    return np.r_[0, np.cumsum(jumps)][blocks]


def _experiences(previous: Version | None) -> int:
    return previous.lineage.experiences if previous else 0


def seed_of(seed: int, previous: Version | None) -> int:
    """Return the seed of one experience, from the config's seed and the number of earlier ones."""
    return int(np.random.SeedSequence([seed, _experiences(previous)]).generate_state(1)[0])
