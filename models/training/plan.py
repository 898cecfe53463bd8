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
from models.training.runs_of_rows import folds_of_runs
from models.version.version import Version

# The folds of at most FEW vectors. For more there are FOLDS - 1, so that a network learns 75 %.
FOLDS, FEW = 5, 400
# The folds for networks of more than LARGE parameters, whose folds are expensive.
FEW_FOLDS, LARGE = 2, 300_000
# Enough calibration scores: ten of them lie beyond 1 %, and more do not improve the rate. Scores of
# the past count, because they are carried over.
ENOUGH = 1_000
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


def _experiences(previous: Version | None) -> int:
    return previous.lineage.experiences if previous else 0


def seed_of(seed: int, previous: Version | None) -> int:
    """Return the seed of one experience, from the config's seed and the number of earlier ones."""
    return int(np.random.SeedSequence([seed, _experiences(previous)]).generate_state(1)[0])
