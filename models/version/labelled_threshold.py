"""The threshold that labels ask for: the best F-beta, or the least cost, over labelled vectors.

van Rijsbergen, Information retrieval, 1979: with TP anomalies caught, FN missed and FP normals
alarmed on,

    F_beta = (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP)

and where a miss and a false alarm have a price, cost = miss FN + false_alarm FP.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Calibration, Threshold, representable
from models.parts.labels import Labels

FEWEST = 5  # different scores of anomalies, and of normals: fewer say where one vector lies
FARTHEST = 10.0  # in p, from what the calibration alone gives
STANDS_IN = {"fpr": 0.01}  # the policy, while there are fewer


def by_labels(
    calibration: Calibration,
    criterion: Mapping[str, float],
    labels: Labels | None,
    score: Callable[[Array], Float64],
) -> Threshold:
    """Return the threshold best by `criterion` for what `labels` score, and its p-value.

    With fewer than FEWEST different scores of either kind it is that of `STANDS_IN`, and its
    calibration is `insufficient`. It is at most FARTHEST times rarer, or more frequent, than that:
    `labels` has `bounded` where they ask for more, which a person may set as a value.
    """
    scores, anomalous = np.empty(0), np.empty(0, np.bool_)
    if labels is not None:
        scores, anomalous = score(labels.vectors), labels.anomalous
    counts = {
        "anomaly": len(np.unique(scores[anomalous])),
        "normal": len(np.unique(scores[~anomalous])),
        "needed": FEWEST,
    }
    if min(counts.values()) < FEWEST:
        given = calibration.threshold(STANDS_IN)
        return replace(given, calibration="insufficient", labels=counts)
    best = optimum(scores, anomalous, criterion)
    # Whoever may label must not be able to silence every alarm, nor to let all rows alarm.
    alpha = STANDS_IN["fpr"]
    least = calibration.threshold({"fpr": alpha * FARTHEST}).value
    most = calibration.threshold({"fpr": alpha / FARTHEST}).value
    within = min(max(best, least), most)
    if within != best:
        counts["bounded"] = 1
    return replace(calibration.threshold({"value": within}), labels=counts)


def optimum(scores: Float64, anomalous: NDArray[np.bool_], criterion: Mapping[str, float]) -> float:
    """Return the best threshold for scores (n,), float32-valued; of equals, the highest.

    `criterion` is {"beta": b}, for which one score is an anomaly's at least, or
    {"miss": a, "false_alarm": b}. What lies between two scores differs in nothing but its margin,
    so the candidates are the middles, the smallest score, and what is just above the largest.

    >>> optimum(np.array([1.0, 2.0, 4.0]), np.array([False, False, True]), {"beta": 1.0})
    3.0
    """
    candidates = _candidates(np.unique(scores))
    caught = _at_least(scores[anomalous], candidates)
    false = _at_least(scores[~anomalous], candidates)
    missed = anomalous.sum() - caught
    if "beta" in criterion:
        square = criterion["beta"] ** 2
        hits = (1.0 + square) * caught
        quality = hits / (hits + square * missed + false)
    else:
        quality = -(criterion["miss"] * missed + criterion["false_alarm"] * false)
    return float(candidates[np.flatnonzero(quality == quality.max())[-1]])


def _candidates(distinct: Float64) -> Float64:
    """Return one threshold for each way to split distinct, ascending scores (m,), (m + 1,)."""
    low, high = distinct[:-1], distinct[1:]
    middles = representable((low + high) / 2.0)
    # Between neighbouring floats there is none; rounded down it would take the lower one in.
    middles = np.where(middles > low, middles, high)
    above = representable(np.nextafter(distinct[-1:].astype(np.float32), np.float32(np.inf)))
    return np.concatenate([distinct[:1], middles, above])


def _at_least(scores: Float64, thresholds: Float64) -> NDArray[np.int64]:
    """Return how many scores are at or above each threshold."""
    return len(scores) - np.sort(scores).searchsorted(thresholds, side="left")
