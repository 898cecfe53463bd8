"""Calls a version's functions when it is loaded, to reject a version that fails later."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import Config, Policy
from models.errors import ArtifactError
from models.parts.calibration import LARGEST, Calibration, Threshold
from models.parts.regimes import Regime
from models.version.judgement import Attribution, Judgement


class ExercisedVersion(Protocol):
    """The parts of a version that are exercised; see `models.version.version`."""

    @property
    def config(self) -> Config:
        """The config with which it was made."""

    @property
    def calibration(self) -> Calibration:
        """The calibration scores of normals."""

    @property
    def dimension(self) -> int:
        """The number of features of a vector."""

    @property
    def regimes(self) -> Sequence[Regime]:
        """The modes of normal behaviour."""

    def threshold_for(self, policy: Policy) -> Threshold:
        """Return the threshold by a policy."""

    def judge(self, X: NDArray[Any]) -> Judgement:
        """Judge the rows of X (n, d)."""

    def explain(self, X: NDArray[Any], k: int) -> list[list[Attribution]]:
        """Explain each row of X (n, d) by k columns."""

    def sample(self, n: int, seed: int) -> Array:
        """Draw n vectors (n, d) in the client's units."""

    def nearest_regime(self, X: Array) -> NDArray[np.int64]:
        """Return the number of the regime nearest to each row of X (n, d), (n,)."""


def exercise(version: ExercisedVersion, golden: Array) -> None:
    """Call once everything that scoring, explaining, status, metrics and replay use.

    Raises ArtifactError if a result is not finite for the golden vectors `golden` (n, d) or for the
    largest possible values.
    """
    widest = np.full((3, version.dimension), [[-LARGEST], [0.0], [LARGEST]], np.float32)
    X = np.concatenate([golden, widest])
    threshold = version.threshold_for(version.config.threshold)
    answers: list[Any] = [*version.judge(X), *version.judge(X[:1])]
    answers.append(version.sample(len(golden), seed=0))
    explained = (
        part for row in version.explain(X, 1) for attribution in row for part in attribution[1:]
    )
    # the values of a category are words
    answers += [part for part in explained if not isinstance(part, str)]
    answers += [
        version.calibration.false_alarm_rate(threshold.value),
        threshold.value,
        threshold.alpha,
    ]
    answers += [version.threshold_for(policy).value for policy in ({"fpr": 0.01}, {"pot": 1e-3})]
    answers += [regime.typical for regime in version.regimes]
    if version.config.missing == "impute" and version.dimension > 1:
        gaps = np.concatenate([np.full((len(X), 1), np.nan, "f4"), X[:, 1:]], 1)
        answers += version.judge(gaps)
    if not all(np.isfinite(answer).all() for answer in answers):
        raise ArtifactError("artifact: some of its answers are not finite")
    version.nearest_regime(X)
