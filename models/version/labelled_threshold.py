"""The threshold by labels: the best F-beta or the lowest cost over labelled vectors.

van Rijsbergen, Information retrieval, 1979: with TP anomalies caught, FN missed and FP normals
alarmed on,

    F_beta = (1 + beta^2) TP / ((1 + beta^2) TP + beta^2 FN + FP)

If a miss and a false alarm have a price, cost = miss FN + false_alarm FP.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Calibration, Threshold, representable
from models.parts.labels import Labels

FEWEST = 5  # the fewest distinct scores of anomalies, and of normals, that decide
FALLBACK = {"fpr": 0.01}  # the policy while there are fewer labels
LARGEST_FACTOR = 10.0  # in p, between this threshold and that of FALLBACK


def by_labels(
    calibration: Calibration,
    criterion: Mapping[str, float],
    labels: Labels | None,
    score: Callable[[Array], Float64],
) -> Threshold:
    """Return the best threshold by `criterion` for the scores of `labels`, and its p-value.

    With fewer than FEWEST distinct scores of either kind of label, the policy FALLBACK decides and
    the calibration is `insufficient`. The threshold's p-value differs from that of FALLBACK by at
    most LARGEST_FACTOR. If the best threshold is further away, the result is bounded and its
    `labels` have the entry `bounded`; a person may then set the threshold by the policy `value`.
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
        fallback = calibration.threshold(FALLBACK)
        return replace(fallback, calibration="insufficient", labels=counts)
    best = optimum(scores, anomalous, criterion)
    # Whoever may label must not be able to silence all alarms, nor to make all rows alarm.
    alpha = FALLBACK["fpr"]
    least = calibration.threshold({"fpr": alpha * LARGEST_FACTOR}).value
    most = calibration.threshold({"fpr": alpha / LARGEST_FACTOR}).value
    bounded = min(max(best, least), most)
    if bounded != best:
        counts["bounded"] = 1
    return replace(calibration.threshold({"value": bounded}), labels=counts)


def optimum(scores: Float64, anomalous: NDArray[np.bool_], criterion: Mapping[str, float]) -> float:
    """Return the best threshold for float32-valued scores (n,); the highest of equally good ones.

    `criterion` is {"beta": b}, which needs at least one anomaly, or {"miss": a, "false_alarm": b}.
    All thresholds between two neighbouring scores give the same result. The candidates are
    therefore the midpoints, the smallest score, and a value just above the largest score.

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
    """Return one threshold for each split of distinct, ascending scores (m,): (m + 1,)."""
    low, high = distinct[:-1], distinct[1:]
    middles = representable((low + high) / 2.0)
    # Neighbouring floats have no midpoint; rounded down, it would include the lower score.
    middles = np.where(middles > low, middles, high)
    above = representable(np.nextafter(distinct[-1:].astype(np.float32), np.float32(np.inf)))
    return np.concatenate([distinct[:1], middles, above])


def _at_least(scores: Float64, thresholds: Float64) -> NDArray[np.int64]:
    """Return the number of scores at or above each threshold."""
    return len(scores) - np.sort(scores).searchsorted(thresholds, side="left")
