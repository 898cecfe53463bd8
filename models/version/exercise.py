"""Calls a version's functions when it is loaded, to reject a version that would fail later."""

from typing import Any

import numpy as np

from models.arrays import Array
from models.errors import ArtifactError
from models.parts.calibration import LARGEST


def exercise(version: Any, golden: Array) -> None:
    """Call once everything that scoring, explaining, status, metrics and replay use.

    `version` is a `Version`, whose module imports this one. Raises ArtifactError if a result is not
    finite for the golden vectors `golden` (n, d) or for the largest possible values.
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
        version.calibration.false_alarm_rate(threshold.value, version.lineage.independent),
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
