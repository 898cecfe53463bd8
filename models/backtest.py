"""Backtest: what a detector would have done on a history, batch by batch, scored before learned.

Dawid, Statistical theory: the prequential approach, 1984. Everything that is scored is unseen,
and what is new is learned only after its alarms were counted.
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

PROBE = 5  # every fifth vector of a window is never learned: it shows what became of the window
NEW = 0.2  # share of alarms from which a batch was something new, not the threshold's doing
BATCHES = 10  # where nothing is said
LEAST = 100  # vectors in a history

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class History:
    """Vectors (n, d) in the order in which they came; which of them are known anomalies, (n,).

    NaN stands for what was not observed, where the config imputes: such rows are never learned.
    """

    vectors: Array
    anomalous: Mask | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows `start` to `stop` under the version before them.

    `rate` is the share of the normals that alarmed, of all rows where none is labelled; `auroc`
    is None without both kinds of label.
    """

    start: int
    stop: int
    alarms: int
    rate: float
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What one config made of a history.

    `asked` is the rate of false alarms asked for; `held`, with its 95 % `interval`, that of the
    batches that brought nothing new. A batch is `new` when a fifth of it and more alarmed. Of
    vectors that were never learned from each window learned, `after` (w,) is the share that
    alarmed once the window was learned, `end` (w,) at the very end. `fpr` would have held
    `asked` in the middle one of the batches.
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
        """How many batches were something new."""
        return sum(batch.rate >= NEW for batch in self.batches)

    @property
    def forgetting(self) -> float:
        """How much more of the windows but the last alarms at the end than when just learned."""
        return float(np.mean(np.subtract(self.end, self.after)[:-1])) if self.end[1:] else 0.0

    @property
    def auroc(self) -> float | None:
        """Mean over the batches that have one."""
        found = [batch.auroc for batch in self.batches if batch.auroc is not None]
        return float(np.mean(found)) if found else None

    @property
    def kept(self) -> bool:
        """Whether the asked rate lies in the interval of the held one."""
        return self.interval[0] <= self.asked <= self.interval[1]

    @property
    def cost(self) -> float:
        """The cost to minimise: 1 - AUROC plus a tenth of the alarms, or only the alarms."""
        alarms = float(np.median([batch.rate for batch in self.batches])) + float(np.mean(self.end))
        return alarms if self.auroc is None else 1.0 - self.auroc + 0.1 * alarms

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON carries it."""
        more = ("new", "forgetting", "auroc", "cost")
        return asdict(self) | {name: getattr(self, name) for name in more}


def windows(n: int, first: int | None = None, batch: int | None = None) -> list[slice]:
    """Return the first window and the batches after it, of `n` rows.

    By default a fifth is learned first, and ten batches follow. What is left over at the end
    joins the last batch. Raises VectorError where nothing would be left to score.

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
    """Live through the history under `config`; yield the share that is done."""
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
    """Return the findings in a batch, and the p-values of its normals."""
    judged = version.judge(X)
    auroc = ranked(judged.scores[anomalous], judged.scores[~anomalous])
    normals = judged.is_anomaly[~anomalous]
    rate = float(normals.mean()) if len(normals) else 0.0
    batch = Batch(part.start, part.stop, int(judged.is_anomaly.sum()), rate, auroc)
    return batch, judged.p_values[~anomalous]
