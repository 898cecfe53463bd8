"""Backtest: replay a history batch by batch; the detector scores each batch before it learns it.

Dawid, Statistical theory: the prequential approach, 1984. The detector has never seen a row that it
scores. It learns a batch only after the alarms of that batch were counted.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import MIN_VECTORS, Config
from models.errors import VectorError
from models.parts.statistics import auroc_if_both, wilson
from models.training.train import learn
from models.version.version import Version

PROBE = 5  # every fifth vector of a window is never learned: it measures forgetting of the window
NEW = 0.2  # a batch with at least this share of alarms is a new regime, not false alarms
BATCHES = 10  # the default number of batches, if none would have more than LARGEST rows
LEAST = 100  # the smallest history, in vectors
LARGEST = 1_000_000  # the largest default window, in rows
LEARNED_MOST = 200_000  # rows learned from a window, evenly taken; as in the service
_PIECE = 50_000  # rows held in memory at a time, besides those to be learned
_KEPT = 10_001  # p-values kept of a batch; of a larger batch, as many quantiles

Mask = NDArray[np.bool_]


class Rows(Protocol):
    """Rows that are read by parts, such as an array or a file; each part is an array."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, part: slice, /) -> Any:
        """Return the rows of a part."""


@dataclass(frozen=True, slots=True)
class History:
    """Vectors (n, d) in order of arrival, and a mask (n,) of the known anomalies.

    NaN marks a missing value where the config imputes. All rows are scored; those with at least
    half of their values are learned, as by the service.
    """

    vectors: Rows
    anomalous: Rows | None = None

    def pieces(self, part: slice) -> Iterator[tuple[Array, Mask]]:
        """Yield the rows of a part in pieces, with a mask of the known anomalies."""
        for start in range(part.start, part.stop, _PIECE):
            piece = slice(start, min(start + _PIECE, part.stop))
            X = self.vectors[piece]
            yield X, np.zeros(len(X), bool) if self.anomalous is None else self.anomalous[piece]

    def normals(self, part: slice) -> Iterator[tuple[Array, Mask]]:
        """Yield the normals of a part to learn, with a mask of the probes (never learned)."""
        before = 0
        for X, anomalous in self.pieces(part):
            normal = X[~anomalous & (2 * np.isnan(X).sum(axis=1) <= X.shape[1])]
            yield normal, (before + np.arange(len(normal))) % PROBE == PROBE - 1
            before += len(normal)

    def rows_to_learn(self, part: slice) -> Array:
        """Return the rows of a part to learn, (n, d), without probes; an even selection of many."""
        every = math.ceil((part.stop - part.start) * (PROBE - 1) / PROBE / LEARNED_MOST)
        kept, before = [], 0
        for normal, is_probe in self.normals(part):
            learnable = normal[~is_probe]
            kept.append(learnable[-before % every :: every])
            before += len(learnable)
        return np.concatenate(kept)


@dataclass(frozen=True, slots=True)
class Batch:
    """The result on rows `start` to `stop`, judged by the version learned from earlier rows.

    `rate` is the share of the `normals` that alarmed; all rows count as normal if none is labelled.
    `auroc` is None unless the batch has both normals and labelled anomalies.
    """

    start: int
    stop: int
    alarms: int
    rate: float
    auroc: float | None
    normals: int


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """The result of one config on a history.

    `asked` is the configured rate of false alarms. `held` is the rate measured on the batches
    without a new regime, and `interval` its 95 % confidence interval. A batch is `new` if at least
    a fifth of it alarmed. From each window some vectors are never learned: `after` (w,) is the
    share of them that alarmed right after the window was learned, `end` (w,) the share that alarms
    at the end. `fpr` is the threshold policy's value with which the median batch would have had the
    rate `asked`.
    """

    name: str
    asked: float
    batches: list[Batch]
    held: float
    interval: tuple[float, float]
    after: list[float]
    end: list[float]
    fpr: float
    regimes: int

    @property
    def new(self) -> int:
        """How many batches were a new regime."""
        return sum(batch.rate >= NEW for batch in self.batches)

    @property
    def forgetting(self) -> float:
        """The mean rise from `after` to `end` over all windows but the last."""
        return float(np.mean(np.subtract(self.end, self.after)[:-1])) if self.end[1:] else 0.0

    @property
    def auroc(self) -> float | None:
        """The mean AUROC over the batches that have one; None if no batch has."""
        aurocs = [batch.auroc for batch in self.batches if batch.auroc is not None]
        return float(np.mean(aurocs)) if aurocs else None

    @property
    def held_as_asked(self) -> bool:
        """Whether `asked` lies in the confidence interval of `held`."""
        return self.interval[0] <= self.asked <= self.interval[1]

    @property
    def cost(self) -> float:
        """The cost by which configs are compared: 1 - AUROC + alarms / 10, or the alarms alone."""
        alarms = float(np.median([batch.rate for batch in self.batches])) + float(np.mean(self.end))
        return alarms if self.auroc is None else 1.0 - self.auroc + 0.1 * alarms

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and derived figures as JSON-able values."""
        more = ("new", "forgetting", "auroc", "cost")
        return asdict(self) | {name: getattr(self, name) for name in more}


def first_window(n: int, first: int | None = None) -> int:
    """Return how many of `n` rows are learned first: `first`, or the default of `split_history`."""
    return first or min(max(n // 5, 2 * MIN_VECTORS), LARGEST)


def split_history(n: int, first: int | None = None, batch: int | None = None) -> list[slice]:
    """Divide `n` rows into the first window and the batches after it.

    By default the first window is a fifth of the rows, and ten batches follow. No default window
    exceeds a million rows, so a larger history has more of them. The rows left over at the end join
    the last batch. Raises VectorError if no row would be left to score.

    >>> split_history(200, 80, 50)
    [slice(0, 80, None), slice(80, 130, None), slice(130, 200, None)]
    """
    if n < LEAST:
        raise VectorError(f"{n} rows; a backtest takes {LEAST} or more, to learn and to score")
    first = first_window(n, first)
    batch = batch or min(max(math.ceil((n - first) / BATCHES), MIN_VECTORS), LARGEST)
    if first < 2 * MIN_VECTORS:
        raise VectorError(f"the first window of {first} rows is less than {2 * MIN_VECTORS}")
    if first >= n:
        raise VectorError(f"the first window of {first} rows leaves none of {n} to score")
    starts = list(range(first, max(n - batch, first) + 1, batch))
    return [slice(0, first), *(slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True))]


def backtest(
    name: str, history: History, parts: Sequence[slice], config: Config
) -> Generator[float, None, BacktestResult]:
    """Run the backtest under `config`; yield the share of the work that is done."""
    version: Version | None = None
    batches: list[Batch] = []
    after: list[float] = []
    p_values: list[Float64] = []
    probed: list[slice] = []
    waiting: Array = history.vectors[:0]
    for i, part in enumerate(parts):
        if version is not None:
            batch, p = _judge_batch(version, history, part)
            batches.append(batch)
            p_values.append(p)
        waiting = np.concatenate([waiting, history.rows_to_learn(part)])
        if len(waiting) >= MIN_VECTORS:
            version = yield from _learn(version, waiting, config, i, len(parts))
            waiting = waiting[:0]
        if version is None:
            raise VectorError(
                f"the first window has {len(waiting)} normals; it needs {MIN_VECTORS}"
            )
        if (share := _alarm_share(version, history, part)) is not None:
            probed.append(part)
            after.append(share)
    assert version is not None
    known = [(b, p) for b, p in zip(batches, p_values, strict=True) if b.rate < NEW]
    known = known or list(zip(batches, p_values, strict=True))
    alarms = sum(round(batch.rate * batch.normals) for batch, _ in known)
    scored = max(sum(batch.normals for batch, _ in known), 1)
    asked = version.threshold_for(config.threshold).alpha
    return BacktestResult(
        name=name,
        asked=asked,
        batches=batches,
        held=alarms / scored,
        interval=wilson(alarms, scored),
        after=after,
        end=[_alarm_share(version, history, part) or 0.0 for part in probed],
        fpr=float(np.median([np.quantile(p, asked) for _, p in known if len(p)])),
        regimes=len(version.regimes),
    )


def _learn(
    version: Version | None, X: Array, config: Config, i: int, parts: int
) -> Generator[float, None, Version]:
    steps = learn(version, X, config)
    while True:
        try:
            progress = next(steps)
        except StopIteration as done:
            return done.value
        yield (i + progress.fraction) / parts


def _judge_batch(version: Version, history: History, part: slice) -> tuple[Batch, Float64]:
    """Return the result on a batch, and the p-values of its normals."""
    judged = [(version.judge(X), anomalous) for X, anomalous in history.pieces(part)]
    scores = np.concatenate([judgement.scores for judgement, _ in judged])
    alarms = np.concatenate([judgement.is_anomaly for judgement, _ in judged])
    p_values = np.concatenate([judgement.p_values for judgement, _ in judged])
    anomalous = np.concatenate([mask for _, mask in judged])
    normals, p = alarms[~anomalous], p_values[~anomalous]
    rate = float(normals.mean()) if len(normals) else 0.0
    auroc = auroc_if_both(scores[~anomalous], scores[anomalous])
    if len(p) > _KEPT:
        p = np.quantile(p, np.linspace(0.0, 1.0, _KEPT))
    return Batch(part.start, part.stop, int(alarms.sum()), rate, auroc, len(normals)), p


def _alarm_share(version: Version, history: History, part: slice) -> float | None:
    """Return the share of a window's probes that alarm; None if it has no probes."""
    alarms = probes = 0
    for normal, is_probe in history.normals(part):
        if is_probe.any():
            alarms += int(version.is_anomaly(normal[is_probe]).sum())
            probes += int(is_probe.sum())
    return alarms / probes if probes else None
