"""Groups vectors into the modes of their density, which valleys separate.

A mixture has as many Gaussians as the codes can separate, and one mode may consist of several. Two
Gaussians belong to one mode if no valley lies between them. The valley is searched on Fisher's
discriminant, the line that separates the two Gaussians best. Tantrum, Murua & Stuetzle (Assessment
and pruning of hierarchical model based clustering, 2003) test for two modes on that line; here the
depth of the valley decides. The straight line between the means would show a valley between almost
any two Gaussians.
"""

import itertools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.regimes import group_means

VALLEY = 2.5  # how many times lower the density is in a valley than at the lower peak
CODES = 100  # codes needed for each Gaussian: with fewer, valleys appear by chance
MOST = 20  # the most Gaussians
PATIENCE = 2  # the search ends after this many added Gaussians without improvement
FEWEST = 5  # the fewest codes of a group that may be separated
SMALLEST = 0.02  # the least share of the codes in a mode
IDLE = 0.02  # added to every covariance: a latent with less variance carries no information
TINY = 1e-12  # replaces a deviation of 0, if two means are the same
_POINTS = 101  # points between two means, both included


def modes(codes: Array, seed: int) -> NDArray[np.int64]:
    """Return the mode to which each of the codes (n, k) belongs, (n,), numbered from 0.

    `codes` are posterior means, so that the posterior's noise does not blur the modes. A mode with
    too few codes joins another.
    """
    from scipy.sparse.csgraph import connected_components

    z = codes[:, codes.var(axis=0) > IDLE].astype(np.float64)
    most = min(MOST, len(z) // CODES)
    if most < 2 or not z.shape[1]:
        return np.zeros(len(codes), np.int64)
    mixture = _best_mixture(z, most, seed)
    separate = _separated_gaussians(mixture.weights_, mixture.means_, mixture.covariances_)
    count, mode = connected_components(~separate, directed=False)  # the mode of each Gaussian
    shares = mixture.predict_proba(z)  # (n, Gaussians)
    large = (np.bincount(mode, shares.sum(axis=0), count) >= SMALLEST * len(z))[mode]
    squares = np.square(mixture.means_[:, None] - mixture.means_[None, large]).sum(axis=2)
    mode = np.where(large, mode, mode[large][squares.argmin(axis=1)])
    _, labels = np.unique(mode[shares.argmax(axis=1)], return_inverse=True)
    return labels.astype(np.int64)


def _best_mixture(z: Float64, most: int, seed: int) -> Any:
    """Return the mixture of at most `most` Gaussians with the least BIC (Schwarz, 1978)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    best, least, added = None, np.inf, 0  # `added` counts the Gaussians since the best mixture
    for components in range(1, most + 1):
        mixture = GaussianMixture(
            components, reg_covar=IDLE, max_iter=60, tol=1e-2, random_state=seed % 2**32
        )
        with warnings.catch_warnings():
            # These warn of fewer distinct codes than Gaussians, or of an unfinished fit. BIC
            # rejects such fits.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(z)
        added += 1
        if (bic := mixture.bic(z)) < least:
            best, least, added = mixture, bic, 0
        if added == PATIENCE:
            break
    return best


def separated(codes: Array, group_of: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the mask (K, K) of the pairs among K groups of codes (n, k) that a valley separates.

    `group_of` (n,) is the group of each code; each of 0..K-1 occurs. Each group counts as one
    Gaussian. All groups have the same weight, because the number of recent codes in a group does
    not matter here. A group of fewer than `FEWEST` codes counts as separated from no other group,
    because chance could separate it.
    """
    z = codes.astype(np.float64)
    k, sizes = z.shape[1], np.bincount(group_of)
    means = group_means(z, group_of)
    within = z - means[group_of]
    tied = within.T @ within / len(z)
    # The covariance of a small group is shrunk towards the pooled covariance of all groups.
    covariances = np.stack(
        [
            (within[rows].T @ within[rows] + k * tied) / (size + k)
            for group, size in enumerate(sizes)
            for rows in [group_of == group]
        ]
    ) + IDLE * np.eye(k)
    enough = sizes >= FEWEST
    equal = np.full(len(sizes), 1.0 / len(sizes))
    return _separated_gaussians(equal, means, covariances) & enough & enough[:, None]


def _separated_gaussians(
    weights: Float64, means: Float64, covariances: Float64
) -> NDArray[np.bool_]:
    """Return the mask (K, K) of the pairs among K Gaussians that a valley separates."""
    separate = np.zeros((len(means), len(means)), np.bool_)
    for i, j in itertools.combinations(range(len(means)), 2):
        pair = [i, j]
        # Fisher's discriminant: on it the distance of the means is largest relative to their
        # spread.
        line = np.linalg.solve(covariances[i] + covariances[j], means[j] - means[i])
        deviations = np.sqrt(line @ covariances[pair] @ line) + TINY
        deep = _valley_depth(weights[pair], means[pair] @ line, deviations) >= np.log(VALLEY)
        separate[i, j] = separate[j, i] = deep
    return separate


def _valley_depth(weights: Float64, means: Float64, deviations: Float64) -> float:
    """Return how deep the density falls between two Gaussians' peaks, in nats below the lower peak.

    >>> round(_valley_depth(np.ones(2) / 2, np.array([-3.0, 3.0]), np.ones(2)), 2)
    3.81
    >>> _valley_depth(np.ones(2) / 2, np.array([-1.0, 1.0]), np.ones(2))
    0.0
    """
    points = np.linspace(means[0], means[1], _POINTS)[:, None]
    logs = np.log(weights / deviations) - 0.5 * np.square((points - means) / deviations)
    log_density = np.logaddexp(logs[:, 0], logs[:, 1])  # (points,), up to a constant
    lowest = int(log_density.argmin())
    peak = min(log_density[: lowest + 1].max(), log_density[lowest:].max())
    return float(peak - log_density[lowest])
