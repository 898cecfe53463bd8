"""The modes of a density: which vectors belong together, by the valleys between them.

A mixture has as many Gaussians as the codes can tell apart, and a mode may take several of them:
two are one mode if no valley lies between them. It is looked for on the line that tells the two
apart best, Fisher's discriminant, on which Tantrum, Murua & Stuetzle (Assessment and pruning of
hierarchical model based clustering, 2003) test for two modes; here its depth decides. On the line
between their means in all dimensions there is a valley between almost any two.
"""

import itertools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.regimes import means_of

VALLEY = 2.5  # how many times lower its density is than the lower of the two peaks
CODES = 100  # for each Gaussian of the density: fewer make valleys of chance
MOST = 20  # Gaussians
PATIENCE = 2  # Gaussians that may be added in vain before it is enough
FEWEST = 5  # codes of a group
SMALLEST = 0.02  # share of the codes that a mode holds at the least
IDLE = 0.02  # variance below which a latent says nothing, added to every covariance
TINY = 1e-12  # of a deviation, where two means are the same
_POINTS = 101  # looked at between two means, both included


def modes(codes: Array, seed: int) -> NDArray[np.int64]:
    """Return which mode of their density each of the codes (n, k) belongs to, (n,) from 0.

    `codes` are posterior means: what the posterior's noise would blur stays apart. A mode of too
    few codes joins another.
    """
    from scipy.sparse.csgraph import connected_components

    z = codes[:, codes.var(axis=0) > IDLE].astype(np.float64)
    most = min(MOST, len(z) // CODES)
    if most < 2 or not z.shape[1]:
        return np.zeros(len(codes), np.int64)
    density = _density(z, most, seed)
    apart = _parted(density.weights_, density.means_, density.covariances_)
    count, of = connected_components(~apart, directed=False)
    own = density.predict_proba(z)  # (n, components)
    large = (np.bincount(of, own.sum(axis=0), count) >= SMALLEST * len(z))[of]
    away = np.square(density.means_[:, None] - density.means_[None, large]).sum(axis=2)
    of = np.where(large, of, of[large][away.argmin(axis=1)])
    _, labels = np.unique(of[own.argmax(axis=1)], return_inverse=True)
    return labels.astype(np.int64)


def _density(z: Float64, most: int, seed: int) -> Any:
    """Return the mixture of at most `most` Gaussians with the least BIC (Schwarz, 1978)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    best, least, vain = None, np.inf, 0
    for components in range(1, most + 1):
        density = GaussianMixture(
            components, reg_covar=IDLE, max_iter=60, tol=1e-2, random_state=seed % 2**32
        )
        with warnings.catch_warnings():
            # Of fewer distinct codes than Gaussians, or of a fit cut short: BIC tells.
            warnings.simplefilter("ignore", ConvergenceWarning)
            density.fit(z)
        bic = density.bic(z)
        if bic < least:
            best, least, vain = density, bic, 0
        else:
            vain += 1
        if vain == PATIENCE:
            break
    return best


def parted(codes: Array, of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return between which of K groups of codes (n, k) a valley lies, (K, K).

    `of` (n,) says of which group a code is; each of 0..K-1 occurs. Each is taken for one Gaussian,
    and all for equally large: how often a group was seen lately says nothing here. Fewer than
    `FEWEST` codes are parted from none, for chance would.
    """
    z = codes.astype(np.float64)
    k, sizes = z.shape[1], np.bincount(of)
    means = means_of(z, of)
    within = z - means[of]
    tied = within.T @ within / len(z)
    # A covariance of few codes is mostly what all groups have in common.
    covariances = np.stack(
        [
            (within[of == group].T @ within[of == group] + k * tied) / (size + k)
            for group, size in enumerate(sizes)
        ]
    ) + IDLE * np.eye(k)
    enough = sizes >= FEWEST
    equal = np.full(len(sizes), 1.0 / len(sizes))
    return _parted(equal, means, covariances) & enough & enough[:, None]


def _parted(weights: Float64, means: Float64, covariances: Float64) -> NDArray[np.bool_]:
    """Return between which of K Gaussians a valley lies, (K, K)."""
    found = np.zeros((len(means), len(means)), np.bool_)
    for i, j in itertools.combinations(range(len(means)), 2):
        pair = [i, j]
        # Fisher's discriminant: on it the means lie furthest apart for the spread around them.
        line = np.linalg.solve(covariances[i] + covariances[j], means[j] - means[i])
        deviations = np.sqrt(line @ covariances[pair] @ line) + TINY
        deep = _valley(weights[pair], means[pair] @ line, deviations) >= np.log(VALLEY)
        found[i, j] = found[j, i] = deep
    return found


def _valley(weights: Float64, means: Float64, deviations: Float64) -> float:
    """Return how far below the lower of its peaks two Gaussians' density falls between, in nats.

    >>> round(_valley(np.ones(2) / 2, np.array([-3.0, 3.0]), np.ones(2)), 2)
    3.81
    >>> _valley(np.ones(2) / 2, np.array([-1.0, 1.0]), np.ones(2))
    0.0
    """
    points = np.linspace(means[0], means[1], _POINTS)[:, None]
    each = np.log(weights / deviations) - 0.5 * np.square((points - means) / deviations)
    log_density = np.logaddexp(each[:, 0], each[:, 1])  # (points,), up to a constant
    lowest = int(log_density.argmin())
    peak = min(log_density[: lowest + 1].max(), log_density[lowest:].max())
    return float(peak - log_density[lowest])
