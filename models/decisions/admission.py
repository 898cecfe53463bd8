"""Admission: which rows of a normal batch are learned, and which wait for a person.

A client vouches for its rows as normal, but a sensor may break, and a script may pick the wrong
hour. A row is held back if the champion calls it anomalous *and* it has no similar rows beside it.
The rows of a new regime are anomalous too, but they are similar to each other, and the detector
should learn them. All functions are pure and use numpy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Threshold
from models.parts.statistics import binomial_at_most
from models.version.version import Version

# A row counts as anomalous up to this p-value, or up to the threshold's alpha if that is smaller.
ALPHA = 0.01
FALSE_DISCOVERIES = 0.05  # the expected share of normals among the rows held back
SURPRISE = 1e-3  # chance does not explain a number of anomalous rows that is less likely than this
# The largest local false discovery rate of a row held back, if chance does not explain the number.
LOCAL_FALSE_DISCOVERIES = 1 / 3
NEIGHBOURS = 0.4  # the neighbours of a row, as a share of the batch
# The batch is a new regime if its median anomalous row has at least this share of its neighbours in
# the batch, and not among vectors drawn from the champion's generator. The share is 1/2 if batch
# and generator agree. A regime that fills the share x of its batch gives at most
# (x + NEIGHBOURS) / (2 NEIGHBOURS), so a regime is found from x = 0.28 on.
TOGETHER = 0.85
ALONE = 0.3  # below this share a row is held back even in the batch of a new regime
POOL = 256  # neighbours are searched among this many rows of a batch, and as many drawn vectors
SMALL_BATCH = 20  # a smaller batch is judged together with the rows that came before it
# A batch has nothing new if its mean p-value is at least this, minus a margin for chance.
WELL_KNOWN = 0.45
KEPT_OF_KNOWN = 4  # of such a batch, one row in four is kept


class Admission(NamedTuple):
    """The verdict on each row, (n,), and three shares of the batch that sum to 1.

    `held` marks the rows held back. `known` is the share of rows below the champion's threshold,
    `novel` the share above it but admitted, `suspicious` the share held back. `surprising`: chance
    does not explain the number of anomalous rows. `well_known`: the champion has nothing to learn
    from the batch. `p_values` are the champion's.
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

    `around` (m, d) holds the rows that came just before. A batch smaller than SMALL_BATCH is judged
    together with them.

    1. A row is anomalous if p <= alpha. By chance alone, Binomial(n, alpha) rows are anomalous.
    2. If chance explains their number, the procedure of Benjamini and Hochberg decides which rows
       are held back, at a false discovery rate of FALSE_DISCOVERIES.
    3. If chance does not explain it, the batch is either contaminated or a new regime. The nearest
       neighbours of each anomalous row are searched among the batch and as many vectors drawn from
       the champion's generator (Schilling, 1986; Henze, 1988: the nearest-neighbour two-sample
       test, applied to each row). If the median row has at least the share TOGETHER of its
       neighbours in the batch, the batch is a new regime: only rows with less than ALONE are held
       back. If not, rows are held back by a bound on their local false discovery rate.
    """
    alpha = min(ALPHA, threshold.alpha)
    p = version.judge(X, threshold).p_values
    anomalous = p <= alpha
    pool, pool_p = X, p
    if len(X) < SMALL_BATCH and around is not None and len(around):
        pool = np.concatenate([X, around])
        pool_p = np.concatenate([p, version.judge(around, threshold).p_values])
    count = int((pool_p <= alpha).sum())
    fewer = binomial_at_most(count - 1, len(pool))
    surprising = 1.0 - fewer(alpha) <= SURPRISE
    held = p <= (_limit_if_not_chance(pool_p, alpha) if surprising else _limit_if_chance(p, alpha))
    if surprising and held.any():
        in_pool = neighbours_within(version, X[anomalous], pool)
        if len(pool) >= SMALL_BATCH and np.median(in_pool) >= TOGETHER:
            held[anomalous] &= in_pool < ALONE
    n = len(X)
    known, suspicious = float((~anomalous).sum()) / n, float(held.sum()) / n
    margin = 3.0 * math.sqrt(1 / 12 / n)  # three deviations of the mean of n uniform p-values
    return Admission(
        held=held,
        p_values=p,
        known=known,
        novel=max(0.0, 1.0 - known - suspicious),
        suspicious=suspicious,
        surprising=surprising,
        well_known=not surprising and not held.any() and float(p.mean()) >= WELL_KNOWN - margin,
    )


def thin(p_values: Float64) -> NDArray[np.intp]:
    """Return the indices of the rows kept of a well-known batch: every fourth by p-value.

    The indices ascend. The tail of the scores stays as heavy as it was.
    """
    return np.sort(np.argsort(p_values, kind="stable")[KEPT_OF_KNOWN // 2 :: KEPT_OF_KNOWN])


def _limit_if_chance(p: Float64, alpha: float) -> float:
    """Return the p-value up to which rows are held back if chance explains their number.

    The procedure is Benjamini and Hochberg's. The result is at most alpha / 2, so that 99.5 % of
    normals pass even if a client sends its rows one by one.
    """
    ordered = np.sort(p)
    most = FALSE_DISCOVERIES * np.arange(1, len(p) + 1) / len(p)
    passed = ordered[ordered <= np.minimum(most, alpha / 2)]
    return float(passed[-1]) if len(passed) else 0.0


def _limit_if_not_chance(p: Float64, alpha: float) -> float:
    """Return the p-value up to which rows are held back if chance does not explain their number.

    The limit maximises the number of rows up to the limit, less 1 / LOCAL_FALSE_DISCOVERIES rows
    for each normal that is expected among them. Few normals are therefore held back if
    contamination is easy to recognise.
    """
    ordered = np.sort(p[p <= alpha])
    gain = np.arange(1, len(ordered) + 1) - len(p) * ordered / LOCAL_FALSE_DISCOVERIES
    return float(ordered[gain.argmax()]) if len(ordered) else 0.0


def neighbours_within(version: Version, rows: Array, pool: Array) -> Float64:
    """Return for each row (m, d) the share of its neighbours that lie in `pool`, (m,).

    Neighbours are searched among `pool` (k, d) and as many vectors drawn from the version's
    generator, in the version's scaled units. A row of `pool` also counts as its own neighbour.
    """
    rng = np.random.default_rng(0)
    pool = pool[rng.permutation(len(pool))[:POOL]]
    k = len(pool)
    known = version.with_faithful_draws().sample(k, seed=0)
    candidates = _scaled_without_gaps(version, np.concatenate([pool, known]))
    nearest = max(1, math.ceil(NEIGHBOURS * k))
    shares = []
    for block in np.array_split(_scaled_without_gaps(version, rows), len(rows) // POOL + 1):
        order = np.argpartition(_distances(block, candidates), nearest - 1, axis=1)
        shares.append((order[:, :nearest] < k).mean(axis=1))
    return np.concatenate(shares)


def _scaled_without_gaps(version: Version, X: Array) -> Array:
    """Return X (n, d) scaled, with missing values set to 0, the middle."""
    return np.nan_to_num(version.scaler.transform(X), copy=False)


def _distances(a: Array, b: Array) -> Float64:
    """Return squared distances (len(a), len(b)) without the term that depends on `a` alone."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.square(b).sum(axis=1) - 2.0 * a @ b.T
