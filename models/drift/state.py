"""The drift state of one version: what its live traffic shows, and what to do."""

import math
import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.drift.features import FeatureTest
from models.drift.finding import State, Statistics, Verdict
from models.drift.regimes import LearnedRegime, RegimeTest
from models.drift.scores import BurstTest, ChangeTest, MartingaleTest
from models.drift.wander import WanderCheck

STATES: tuple[State, ...] = ("none", "known_regime", "new_regime", "degraded")
FORMAT = 1


def state_of(
    *, scores_moved: bool, inputs_moved: bool, burst: bool, mix_moved: bool = False
) -> State:
    """Return the state that follows from the findings.

    - `none`: nothing to do.
    - `known_regime`: the input moved, but the model finds the input normal; or the mix of known
      regimes changed, which moves the scores too. There is nothing to learn.
    - `new_regime`: the scores moved, and no mix of known regimes explains why; or many anomalies
      come while the input moved. Send normal batches of the new regime, or find the fault.
    - `degraded`: many anomalies come while most of the input has not moved. Do not learn now: the
      anomalies would become normal.
    """
    if burst:
        return "new_regime" if inputs_moved else "degraded"
    if scores_moved and not mix_moved:
        return "new_regime"
    return "known_regime" if inputs_moved or mix_moved else "none"


@dataclass(frozen=True)
class Baseline:
    """The reference with which one version's live traffic is compared.

    `calibration` (n,) are real calibration scores. `expected` (d, B) are the shares of the
    reference in each bin, counted on `reference_rows` rows. `wander` (d,) is how far a window of
    learned normals was from the reference, and `score_wander` how far the scores of such a window
    were from all scores. `alpha` is the share of normals above `threshold`. `regimes` is empty if
    the version knows none.
    """

    uid: str
    version: int
    calibration: NDArray[np.float64]
    expected: NDArray[np.float64]
    wander: NDArray[np.float64]
    reference_rows: int
    features: Sequence[str]
    alpha: float
    regimes: Sequence[LearnedRegime] = ()
    score_wander: float = 0.0
    threshold: float = math.inf


@dataclass(frozen=True)
class Sample:
    """One version's live traffic in one process since that process's last summary.

    `scores` and `p_values` (m,) are of sampled vectors, in order. `anomalies` counts the anomalies
    among all `scored` vectors. `counts` (d, B) are the bin counts of sampled rows. `regimes` (R +
    1,) counts the anomalies, then the rows of each regime, among sampled rows.
    """

    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    anomalies: int
    scored: int
    counts: NDArray[np.int64]
    regimes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


class _Stored(Protocol):
    """A test whose state is stored between two runs of a worker."""

    def to_dict(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any], /) -> None: ...


class DriftTests:
    """All drift tests on one version's traffic, and their verdict."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        seed = (zlib.crc32(baseline.uid.encode()), baseline.version)
        self._martingale = MartingaleTest(baseline.calibration, np.random.default_rng(seed))
        self._wander = WanderCheck(baseline.score_wander)
        self._adwin = ChangeTest()
        self._burst = BurstTest()
        self._features = FeatureTest(
            baseline.expected, baseline.reference_rows, baseline.features, baseline.wander
        )
        self._regimes = RegimeTest(baseline.regimes)

    def update(self, sample: Sample) -> None:
        """Add one summary; scores that are not finite are left out."""
        p_values = sample.p_values[np.isfinite(sample.p_values)]
        self._wander.add(p_values)
        if self._wander.is_inside:
            self._martingale.restart()
        else:
            self._martingale.update(sample.scores[np.isfinite(sample.scores)])
        self._adwin.update(p_values)
        self._burst.update(sample.anomalies, sample.scored)
        self._features.update(sample.counts)
        self._regimes.update(sample.regimes)

    def attribute(self, rows: Mapping[str, int], dismissed: Set[str]) -> bool:
        """Attribute anomalies to incidents; return whether the findings may have changed.

        `rows` counts them by the id of an incident or of a dismissed pattern, and `dismissed` are
        the ids of all dismissed patterns. Their rows are not a burst. When such rows come or an
        incident is dismissed, the martingale starts again without alarming scores, once for a
        version. So no number of dismissals keeps the martingale from finding that the other scores
        moved.
        The tests of the input go on.
        """
        excused, known = self._burst.excused, self._burst.dismissed
        self._burst.attribute(rows, dismissed)
        # The pattern of a single event, `e...`, says nothing of the other scores.
        added = () if known is None else (one for one in dismissed - known if one[:1] == "i")
        explained = self._burst.excused > excused or any(added)
        if explained:
            self._martingale.leave_out_alarms(self.baseline.threshold)
        return explained or self._burst.excused != excused

    def verdict(self) -> Verdict:
        """Return state, version and statistics, as `/drift` shows them.

        ADWIN's finding is reported but does not change the state: ADWIN has no reference and cannot
        say which side of a change is normal.
        """
        martingale = self._martingale.finding()
        burst = self._burst.finding(self.baseline.alpha)
        features, inputs = self._features.findings()
        regimes = self._regimes.finding()
        state = state_of(
            scores_moved=martingale.alarm,
            inputs_moved=inputs.alarm,
            burst=burst.alarm,
            mix_moved=regimes.alarm,
        )
        statistics = Statistics(
            martingale=martingale,
            adwin=self._adwin.finding(),
            anomalies=burst,
            features=features,
            inputs=inputs,
            regimes=regimes,
        )
        return Verdict(state, self.baseline.version, statistics)

    @property
    def _stored(self) -> dict[str, _Stored]:
        """The tests, by the names under which their states are stored."""
        return {
            "martingale": self._martingale,
            "course": self._wander,
            "adwin": self._adwin,
            "burst": self._burst,
            "features": self._features,
            "regimes": self._regimes,
        }

    def to_bytes(self) -> bytes:
        """Return the whole state as bytes, for the worker that continues the tests."""
        state = {"format": FORMAT, "uid": self.baseline.uid, "version": self.baseline.version}
        state |= {name: test.to_dict() for name, test in self._stored.items()}
        return msgspec.msgpack.encode(state, enc_hook=_pack)

    @classmethod
    def from_bytes(cls, baseline: Baseline, packed: bytes) -> Self:
        """Continue from stored bytes; start anew if they belong to another version or format."""
        drift = cls(baseline)
        try:
            state = _unpack(msgspec.msgpack.decode(packed))
        except (msgspec.DecodeError, ValueError):
            return drift
        same = (FORMAT, baseline.uid, baseline.version)
        if (state.get("format"), state.get("uid"), state.get("version")) != same:
            return drift
        for name, test in drift._stored.items():
            if name in state:  # an earlier release has fewer tests
                test.restore(state[name])
        return drift


def _pack(value: object) -> object:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": value.tobytes()}
    raise TypeError(f"{type(value).__name__} is not a part of a drift state")


def _unpack(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"dtype", "shape", "data"}:
        return np.frombuffer(value["data"], value["dtype"]).reshape(value["shape"])
    return {key: _unpack(inner) for key, inner in value.items()}
