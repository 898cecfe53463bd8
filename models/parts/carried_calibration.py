"""Carries the calibration scores of old data, which is no longer held, to the next version."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.parts.calibration import CAPACITY, Calibration, representable

GENERATED = 4_000  # vectors drawn from the previous version to represent the old normals
# This share of the generated scores, the nearest by rank, lies near a calibration score. Shares
# from 0.005 to 0.05 work.
NEIGHBOURHOOD = 0.02
CHANGES = 20  # each calibration score is carried with this many changes of score
# The p-values between which `resembling` compares generated vectors with calibration scores.
P_VALUES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])
ROUNDS = 30  # rounds of raking
MOST_OFTEN = 20.0  # one generated vector represents at most this many


def thin(scores: NDArray[np.float64], n: int) -> Float64:
    """Return n of the ascending scores, evenly spaced by rank; all if there are at most n."""
    if len(scores) <= n:
        return scores
    ranks = (np.arange(n) + 0.5) * len(scores) / n
    return scores[ranks.astype(np.int64)]


def resembling(
    parts: Float64, tables: Iterable[Float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return indices (n,) that resample n generated vectors so that they score like real ones.

    `parts` (p, n) are the scores of n generated vectors by the parts of a score, and `tables` the
    calibration scores of each part. A vector is drawn more often if its scores are rarer among the
    generated vectors than among the calibration scores. The weights come from raking (Deming &
    Stephan, 1940): in ROUNDS rounds they are multiplied, part by part, until the scores of each
    part have the same shares between the P_VALUES as its table. Without raking, the scores of
    generated vectors change differently from those of real vectors with the same score.
    """
    groups, shares = [], []
    # A version of an earlier release may have one table fewer.
    for scores, table in zip(parts, tables, strict=False):
        edges = np.quantile(table, 1.0 - P_VALUES)
        groups.append(edges.searchsorted(scores, "right"))
        counts = np.bincount(edges.searchsorted(table, "right"), minlength=len(P_VALUES) + 1)
        shares.append(counts / len(table))
    n = parts.shape[1]
    weights = np.full(n, 1.0 / n)
    for _ in range(ROUNDS):
        for group, share in zip(groups, shares, strict=True):
            sums = np.bincount(group, weights, len(share))
            weights *= np.divide(share, sums, out=np.ones_like(sums), where=sums > 0.0)[group]
        weights = np.minimum(weights / weights.sum(), MOST_OFTEN / n)
    cumulative = np.cumsum(weights)
    points = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return np.minimum(cumulative.searchsorted(points), n - 1)


def carried(calibrated: Float64, before: Float64, after: Float64) -> Float64:
    """Return the scores that the old normals would have under the new version, ascending (n,).

    The old normals are no longer held. Generated vectors score lower than real ones under every
    version, so only their changes of score are used: a real old normal with score s is assumed to
    change as the generated vectors with scores near s changed. Moving the scores quantile by
    quantile would hold the false-alarm rate only if the order of the scores were kept; on small
    tabular sets it let twice as many false alarms through.

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
    """Return the indices (n, CHANGES) of generated scores that lie near each calibrated score.

    `before` (g,), g >= 3, are the generated scores. The indices are spread over the share
    `NEIGHBOURHOOD` that is nearest by rank.
    """
    order = np.argsort(before, kind="stable")
    reach = min(max(1, round(NEIGHBOURHOOD * len(order) / 2)), (len(order) - 1) // 2)
    centre = np.searchsorted(before[order], calibrated)
    centre = np.clip(centre, reach, len(order) - 1 - reach)
    return order[centre[:, None] + np.linspace(-reach, reach, CHANGES).round().astype(np.int64)]


def middles(scores: Float64) -> Float64:
    """Sort the scores, and return the middle score of each `CHANGES` consecutive ones."""
    return np.sort(scores)[CHANGES // 2 :: CHANGES]


def repeated(new: Float64, share: float, n_old: int) -> Float64:
    """Return the scores `new` (..., n), repeated until they are the `share` of a calibration.

    The other scores of the calibration are up to `n_old` old ones. With too few new scores `mixed`
    would leave out most old ones.
    """
    wanted = share / (1.0 - share) * min(n_old, CAPACITY * (1.0 - share))
    return np.repeat(new, max(1, math.ceil(wanted / max(1, new.shape[-1]))), axis=-1)


def mixed(old: Float64, new: Float64, share_old: float) -> Calibration:
    """Return a calibration in which `share_old` of the scores are old ones.

    It keeps as many scores as that ratio allows, and each at most once.
    """
    if not 0.0 < share_old < 1.0 or not len(old) or not len(new):
        return Calibration(np.sort(thin(np.sort(new if len(new) else old), CAPACITY)))
    n = min(len(old) / share_old, len(new) / (1.0 - share_old), CAPACITY)
    kept = [
        thin(np.sort(old), max(1, round(n * share_old))),
        thin(np.sort(new), max(1, round(n * (1.0 - share_old)))),
    ]
    return Calibration(representable(np.sort(np.concatenate(kept))))
