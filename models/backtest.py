"""Backtest: replay a history batch by batch; the detector scores each batch before it learns it.

Dawid, Statistical theory: the prequential approach, 1984. The detector has never seen a row that it
scores. It learns a batch only after the alarms of that batch were counted.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import MIN_VECTORS, Config
from models.errors import VectorError
from models.parts.statistics import ranked, wilson
from models.training.train import learn
from models.version.version import Version

PROBE = 5  # every fifth vector of a window is never learned: it measures forgetting of the window
NEW = 0.2  # a batch with at least this share of alarms is a new regime, not false alarms
BATCHES = 10  # the default number of batches
LEAST = 100  # the smallest history, in vectors

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class History:
    """Vectors (n, d) in order of arrival, and a mask (n,) of the known anomalies.

    NaN marks a missing value where the config imputes. Rows with a missing value are scored but
    never learned.
    """

    vectors: Array
    anomalous: Mask | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The result on rows `start` to `stop`, judged by the version learned from earlier rows.

    `rate` is the share of the normal rows that alarmed, or of all rows if no row is labelled.
    `auroc` is None unless the batch has both normals and labelled anomalies.
    """

    start: int
    stop: int
    alarms: int
    rate: float
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The result of one config on a history.

    `asked` is the configured rate of false alarms. `held` is the rate measured on the batches
    without a new regime, and `interval` its 95 % confidence interval. A batch is `new` if at least
    a fifth of it alarmed. From each window some vectors are never learned: `after` (w,) is the
    share of them that alarmed right after the window was learned, `end` (w,) the share that alarms
    at the end. `fpr` is the setting that would have given the rate `asked` on the median batch.
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
        found = [batch.auroc for batch in self.batches if batch.auroc is not None]
        return float(np.mean(found)) if found else None

    @property
    def kept(self) -> bool:
        """Whether `asked` lies in the confidence interval of `held`."""
        return self.interval[0] <= self.asked <= self.interval[1]

    @property
    def cost(self) -> float:
        """The cost to minimise: 1 - AUROC + alarms / 10; without an AUROC, the alarms alone."""
        alarms = float(np.median([batch.rate for batch in self.batches])) + float(np.mean(self.end))
        return alarms if self.auroc is None else 1.0 - self.auroc + 0.1 * alarms

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and derived figures as JSON-able values."""
        more = ("new", "forgetting", "auroc", "cost")
        return asdict(self) | {name: getattr(self, name) for name in more}


def windows(n: int, first: int | None = None, batch: int | None = None) -> list[slice]:
    """Divide `n` rows into the first window and the batches after it.

    By default the first window is a fifth of the rows, and ten batches follow. The rows left over
    at the end join the last batch. Raises VectorError if no row would be left to score.

    >>> windows(200, 80, 50)
    [slice(0, 80, None), slice(80, 130, None), slice(130, 200, None)]
    """
    if n < LEAST:
        raise VectorError(f"{n} rows; a backtest takes {LEAST}, some to learn and some to score")
    first = first or max(n // 5, 2 * MIN_VECTORS)
    batch = batch or max(math.ceil((n - first) / BATCHES), MIN_VECTORS)
    if first < 2 * MIN_VECTORS:
        raise VectorError(f"the first window of {first} rows is less than {2 * MIN_VECTORS}")
    if first >= n:
        raise VectorError(f"the first window of {first} rows leaves none of {n} to score")
    starts = list(range(first, max(n - batch, first) + 1, batch))
    return [slice(0, first), *(slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True))]


def live(
    name: str, history: History, parts: Sequence[slice], config: Config
) -> Generator[float, None, Lifetime]:
    """Run the backtest under `config`; yield the share of the work that is done."""
    version: Version | None = None
    batches: list[Batch] = []
    probes: list[Array] = []
    after: list[float] = []
    p_values: list[Float64] = []
    waiting = history.vectors[:0]
    for i, part in enumerate(parts):
        X = history.vectors[part]
        anomalous = np.zeros(len(X), bool) if history.anomalous is None else history.anomalous[part]
        if version is not None:
            batch, p = _scored(version, X, anomalous, part)
            batches.append(batch)
            p_values.append(p)
        normal = X[~anomalous & ~np.isnan(X).any(axis=1)]
        probing = np.arange(len(normal)) % PROBE == PROBE - 1
        waiting = np.concatenate([waiting, normal[~probing]])
        if len(waiting) >= MIN_VECTORS:
            version = yield from _learn(version, waiting, config, i, len(parts))
            waiting = waiting[:0]
        if version is None:
            raise VectorError(f"the first window has {len(waiting)} normals; {MIN_VECTORS} teach")
        if probing.any():
            probes.append(normal[probing])
            after.append(float(version.is_anomaly(probes[-1]).mean()))
    assert version is not None
    known = [(b, p) for b, p in zip(batches, p_values, strict=True) if b.rate < NEW]
    known = known or list(zip(batches, p_values, strict=True))
    alarms = sum(round(batch.rate * len(p)) for batch, p in known)
    scored = max(sum(len(p) for _, p in known), 1)
    asked = version.threshold_for(config.threshold).alpha
    return Lifetime(
        name=name,
        asked=asked,
        batches=batches,
        held=alarms / scored,
        interval=wilson(alarms, scored),
        after=after,
        end=[float(version.is_anomaly(probe).mean()) for probe in probes],
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
            learned: Version = done.value
            return learned
        yield (i + progress.fraction) / parts


def _scored(version: Version, X: Array, anomalous: Mask, part: slice) -> tuple[Batch, Float64]:
    """Return the result on a batch, and the p-values of its normals."""
    judged = version.judge(X)
    auroc = ranked(judged.scores[anomalous], judged.scores[~anomalous])
    normals = judged.is_anomaly[~anomalous]
    rate = float(normals.mean()) if len(normals) else 0.0
    batch = Batch(part.start, part.stop, int(judged.is_anomaly.sum()), rate, auroc)
    return batch, judged.p_values[~anomalous]
