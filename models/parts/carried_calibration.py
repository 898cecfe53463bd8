"""Calibration scores of data that is gone, carried from one version to the next."""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.parts.calibration import CAPACITY, Calibration, representable

GENERATED = 4_000  # vectors that carry a calibration over, and that the gate compares on
NEIGHBOURHOOD = 0.02  # share of the generated vectors that count as scoring alike; .005 to .05 do

CHANGES = 20  # changes of score that each calibration score is carried with


def thin(scores: NDArray[np.float64], n: int) -> Float64:
    """Return n of the ascending scores, evenly spaced by rank; all where there are no more."""
    if len(scores) <= n:
        return scores
    ranks = (np.arange(n) + 0.5) * len(scores) / n
    return scores[ranks.astype(np.int64)]


def carried(calibrated: Float64, before: Float64, after: Float64) -> Float64:
    """Return what the old normals would score now, without having them, ascending (n,).

    Generated vectors score better than real ones, under every version, so their scores cannot
    stand in. But how a score changed can be seen on them: a real old normal that scored s is
    taken to have changed as the generated vectors that scored about s did. (Moving quantile by
    quantile instead holds the rate only where the order of the scores is kept: on small tabular
    sets it let twice as many false alarms through.)

    Parameters
    ----------
    calibrated
        The previous version's calibration scores, ascending (n,).
    before, after
        Scores of the same generated vectors under the previous and the new version, (g,) with
        g >= 3.
    """
    changes = (after - before)[alike(calibrated, before)]
    return middles((calibrated[:, None] + changes).ravel())


def alike(calibrated: Float64, before: Float64) -> NDArray[np.int64]:
    """Return which of the generated scores (g,), g >= 3, lie about each calibrated one.

    (n, CHANGES), spread over the nearest `NEIGHBOURHOOD` of them by rank.
    """
    order = np.argsort(before, kind="stable")
    reach = min(max(1, round(NEIGHBOURHOOD * len(order) / 2)), (len(order) - 1) // 2)
    centre = np.searchsorted(before[order], calibrated)
    centre = np.clip(centre, reach, len(order) - 1 - reach)
    return order[centre[:, None] + np.linspace(-reach, reach, CHANGES).round().astype(np.int64)]


def middles(scores: Float64) -> Float64:
    """Return one of every `CHANGES` ascending scores: the middle one of each group."""
    return np.sort(scores)[CHANGES // 2 :: CHANGES]


def mixed(old: Float64, new: Float64, share_old: float) -> Calibration:
    """Return the calibration on old and new scores in the ratio of `share_old`.

    As many scores are kept as there are in that ratio, never one twice.
    """
    if not 0.0 < share_old < 1.0 or not len(old) or not len(new):
        return Calibration(np.sort(thin(np.sort(new if len(new) else old), CAPACITY)))
    n = min(len(old) / share_old, len(new) / (1.0 - share_old), CAPACITY)
    kept = [
        thin(np.sort(old), max(1, round(n * share_old))),
        thin(np.sort(new), max(1, round(n * (1.0 - share_old)))),
    ]
    return Calibration(representable(np.sort(np.concatenate(kept))))
