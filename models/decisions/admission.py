"""Admission: which rows of a normal batch are learned from, and which wait for a person.

A client vouches for its rows, but a sensor breaks and a script picks the wrong hour. A row is held
back when the champion calls it anomalous *and* it stands alone: a new regime is anomalous too, but
its rows come together, and learning it is the point. Pure functions over numpy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Threshold
from models.parts.statistics import binomial_tail
from models.version.version import Version

ALPHA = 0.01  # rows as rare as this count as anomalous, or rarer where the threshold is stricter
FALSE_DISCOVERIES = 0.05  # of the rows held back, at most so many are expected to be normal
LOCAL_FALSE_DISCOVERIES = 1 / 3  # the same at the margin, where too many rows are anomalous
SURPRISE = 1e-3  # a share of anomalous rows less likely than this is not chance
NEIGHBOURS = 0.4  # of the batch: the neighbourhood of a row
# Share of a row's neighbours that come from the batch rather than from the champion's generator.
# Where batch and generator agree it is 1/2; a regime that fills the share x of its batch brings it
# to (x + NEIGHBOURS) / (2 NEIGHBOURS) at most, so from 0.28 on it is a regime.
TOGETHER = 0.85
ALONE = 0.3  # in a new regime's batch too, a row nearer to what is known than to the regime
POOL = 256  # rows of a batch, and as many drawn ones, that neighbours are looked for among
SMALL_BATCH = 20  # fewer rows say nothing about each other: what came before is looked at too
WELL_KNOWN = 0.45  # mean p-value, less chance, from which a batch has nothing new
KEPT_OF_KNOWN = 4  # one row of so many is kept of such a batch


class Admission(NamedTuple):
    """The verdict on each row, (n,): held back or not; and shares of the batch that sum to 1.

    `known` rows are within the champion's threshold, `novel` ones beyond it but admitted,
    `suspicious` ones are held back. `surprising` says that chance does not explain the anomalous
    ones, `well_known` says that the champion has nothing to learn from
    the batch; `p_values` are the champion's.
    """

    held: NDArray[np.bool_]
    p_values: Float64
    known: float
    novel: float
    suspicious: float
    surprising: bool
    well_known: bool


def admit(
    version: Version, X: Array, threshold: Threshold, around: Array | None = None
) -> Admission:
    """Judge the rows of a batch X (n, d), n > 0, by the champion and by each other.

    `around` (m, d) holds the rows that came just before; they count as neighbours of a batch
    smaller than SMALL_BATCH.

    1. A row is anomalous from p <= alpha on. Chance alone puts Binomial(n, alpha) rows there.
    2. Where that explains their number, only those are held back that stand out of so many rows:
       by Benjamini and Hochberg's procedure, at a false discovery rate of FALSE_DISCOVERIES.
    3. Where it does not, the batch is either contaminated or a new regime. The neighbours of each
       anomalous row are looked for among the batch and as many vectors drawn from the champion's
       generator (Schilling, 1986; Henze, 1988: the nearest-neighbour two-sample test, row by row).
       If the median row has TOGETHER of them in the batch, its region is new and populated, and
       the regime passes, with all its rows that are not ALONE in it. Otherwise 2. decides.
    """
    alpha = min(ALPHA, threshold.alpha)
    p = version.judge(X, threshold).p_values
    anomalous = p <= alpha
    pool, pool_p = X, p
    if len(X) < SMALL_BATCH and around is not None and len(around):
        pool = np.concatenate([X, around])
        pool_p = np.concatenate([p, version.judge(around, threshold).p_values])
    count = int((pool_p <= alpha).sum())
    surprising = binomial_tail(count, len(pool), alpha) <= SURPRISE
    suspicious = p <= (_many(pool_p, alpha) if surprising else _few(p, alpha))
    if surprising and suspicious.any():
        together = neighbours_within(version, X[anomalous], pool)
        if len(pool) >= SMALL_BATCH and np.median(together) >= TOGETHER:
            suspicious[anomalous] &= together < ALONE
    n = len(X)
    known, held = float((~anomalous).sum()) / n, float(suspicious.sum()) / n
    rests = 0.5 - WELL_KNOWN + 3.0 * math.sqrt(1 / 12 / n)  # the mean of n uniform p-values
    return Admission(
        held=suspicious,
        p_values=p,
        known=known,
        novel=max(0.0, 1.0 - known - held),
        suspicious=held,
        surprising=surprising,
        well_known=not surprising and not suspicious.any() and float(p.mean()) >= 0.5 - rests,
    )


def thin(p_values: Float64) -> NDArray[np.intp]:
    """Return which rows of a well-known batch are kept, ascending: every fourth by p-value.

    So the tail stays as heavy as it was.
    """
    return np.sort(np.argsort(p_values, kind="stable")[KEPT_OF_KNOWN // 2 :: KEPT_OF_KNOWN])


def _few(p: Float64, alpha: float) -> float:
    """Return the p-value up to which rows stand out of a batch whose share is as it should be.

    By Benjamini and Hochberg. Half of alpha at most, so that even a client that sends its rows
    one by one keeps 99.5 % of them.
    """
    ordered = np.sort(p)
    most = FALSE_DISCOVERIES * np.arange(1, len(p) + 1) / len(p)
    passed = ordered[ordered <= np.minimum(most, alpha / 2)]
    return float(passed[-1]) if len(passed) else 0.0


def _many(p: Float64, alpha: float) -> float:
    """Return the p-value up to which rows of a batch with too large a share are held back.

    Up to there each step has gathered at least 1 / LOCAL_FALSE_DISCOVERIES times the rows that it
    would of normals alone: where contamination is easily told, few normals go with it.
    """
    ordered = np.sort(p[p <= alpha])
    gain = np.arange(1, len(ordered) + 1) - len(p) * ordered / LOCAL_FALSE_DISCOVERIES
    return float(ordered[gain.argmax()]) if len(ordered) else 0.0


def neighbours_within(version: Version, rows: Array, pool: Array) -> Float64:
    """Return for each row (m, d) the share of its neighbours that lie in `pool`, (m,).

    Neighbours are looked for among `pool` (k, d) and as many vectors that the version's generator
    draws, in the version's scaled units. A row of `pool` is its own neighbour too.
    """
    rng = np.random.default_rng(0)
    pool = pool[rng.permutation(len(pool))[:POOL]]
    k = len(pool)
    known = version.faithful().sample(k, seed=0)
    there = _placed(version, np.concatenate([pool, known]))
    nearest = max(1, math.ceil(NEIGHBOURS * k))
    shares = [
        (np.argpartition(_distances(block, there), nearest - 1, axis=1)[:, :nearest] < k).mean(1)
        for block in np.array_split(_placed(version, rows), len(rows) // POOL + 1)
    ]
    return np.concatenate(shares)


def _placed(version: Version, X: Array) -> Array:
    """Return X (n, d) scaled, with what was not observed in the middle."""
    return np.nan_to_num(version.scaler.transform(X), copy=False)


def _distances(a: Array, b: Array) -> Float64:
    """Return squared distances (len(a), len(b)), less what does not depend on b."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    distances: Float64 = np.square(b).sum(axis=1) - 2.0 * a @ b.T
    return distances
