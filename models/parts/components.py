"""Gaussians and round kernels over codes: moved into another space, and merged with others."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64

PROBES = 4  # directions in which a kernel's width is measured in another space
# The least variance of a Gaussian relative to the sum of its variances. With less, rounding to
# float32 leaves a matrix that is not a covariance.
NARROWEST = 1e-11


class Components(NamedTuple):
    """K Gaussians and m round kernels over codes of k dimensions.

    The Gaussians have `weights` (K,), which sum to 1, `means` (K, k) and `covariances` (K, k, k).
    The kernels have `shares` (m,), which sum to 1, `centres` (m, k) and `variances` (m,).
    """

    weights: Float64
    means: Float64
    covariances: Float64
    shares: Float64
    centres: Float64
    variances: Float64

    def mapped(self, to: Callable[[Float64], Float64], ridge: float) -> Self:
        """Return the components in the space to which `to` maps codes: (n, k) to (n, j).

        `ridge` is added to every variance. Each Gaussian is moved by the unscented transform
        (Julier & Uhlmann, 1997): `to` maps 2 k points that have its mean and covariance, and the
        mapped points give the new mean and covariance.
        """
        k = self.means.shape[1]
        axes = math.sqrt(k) * np.linalg.cholesky(widened(self.covariances)).transpose(0, 2, 1)
        points = self.means[:, None] + np.concatenate([axes, -axes], axis=1)  # (K, 2k, k)
        points = to(points.reshape(-1, k)).reshape(len(points), 2 * k, -1)
        means = points.mean(axis=1)
        centred = points - means[:, None]
        j = points.shape[2]
        covariances = centred.transpose(0, 2, 1) @ centred / (2 * k) + ridge * np.eye(j)
        covariances = widened(covariances)
        signs = np.where(np.random.default_rng(0).random((PROBES, k)) < 0.5, -1.0, 1.0)
        steps = np.sqrt(self.variances)[:, None] * np.concatenate([signs, -signs])[:, None]
        centres = to(self.centres)
        around = to((self.centres + steps).reshape(-1, k)).reshape(2 * PROBES, *centres.shape)
        variances = np.square(around - centres).sum(axis=2).mean(axis=0) / j
        variances = np.maximum(variances, 10.0 * ridge)
        return type(self)(self.weights, means, covariances, self.shares, centres, variances)

    def joined_with(self, others: "Components", share: float) -> Self:
        """Return these components with weight `share`, and `others` with the remaining weight."""
        scales = (share, 1.0, 1.0, share, 1.0, 1.0), (1.0 - share, 1.0, 1.0, 1.0 - share, 1.0, 1.0)
        pairs = zip(self, others, *scales, strict=True)
        return type(self)(*(np.concatenate([a * s, b * t]) for a, b, s, t in pairs))

    def merged(self, gaussians: int, kernels: int) -> Self:
        """Merge the most similar components until at most these numbers of both kinds are left.

        A merged component has the mean and the covariance of the components that it replaces.
        """
        weights, means, covariances = _merged_gaussians(
            self.weights, self.means, self.covariances, gaussians
        )
        return type(self)(
            weights,
            means,
            covariances,
            *_merged_kernels(self.shares, self.centres, self.variances, kernels),
        )


def widened(covariances: Float64) -> Float64:
    """Return covariances (K, k, k) whose Cholesky factors exist, also when rounded to float32.

    Values far beyond a view's knots, and the merging of Gaussians that lie far apart, make a
    Gaussian so wide in some directions that rounding errors exceed its variance in others.
    """
    least = NARROWEST * np.trace(covariances, axis1=1, axis2=2)
    return covariances + least[:, None, None] * np.eye(covariances.shape[2])


def _merged_gaussians(
    weights: Float64, means: Float64, covariances: Float64, most: int
) -> tuple[Float64, Float64, Float64]:
    """Merge pairs of Gaussians until `most` are left; each time the pair that costs least.

    The cost is Runnalls' bound (2007).
    """
    n = len(weights)
    if n <= most:
        return weights, means, covariances
    weights, means, covariances = weights.copy(), means.copy(), covariances.copy()
    log_volumes = np.linalg.slogdet(covariances)[1]

    def with_others(i: int) -> tuple[Float64, Float64, Float64]:
        """Return the means, covariances and costs of merging Gaussian i with each Gaussian."""
        share = (weights[i] / (weights[i] + weights))[:, None]
        offsets = means - means[i]
        middle = means - share * offsets
        spread = (share * (1.0 - share))[:, :, None] * offsets[:, :, None] * offsets[:, None]
        both = share[:, :, None] * covariances[i] + (1.0 - share)[:, :, None] * covariances + spread
        merged = (weights[i] + weights) * np.linalg.slogdet(both)[1]
        return middle, both, 0.5 * (merged - weights[i] * log_volumes[i] - weights * log_volumes)

    left = np.ones(n, bool)
    costs = np.stack([with_others(i)[2] for i in range(n)])  # (n, n)
    np.fill_diagonal(costs, np.inf)
    while left.sum() > most:
        i, j = map(int, np.unravel_index(costs.argmin(), costs.shape))
        middle, both, _ = with_others(i)
        means[i], covariances[i] = middle[j], both[j]
        weights[i] += weights[j]
        log_volumes[i], left[j] = np.linalg.slogdet(both[j])[1], False
        changed = np.where(left, with_others(i)[2], np.inf)
        changed[i] = np.inf
        costs[i], costs[:, i] = changed, changed
        costs[j], costs[:, j] = np.inf, np.inf
    return weights[left], means[left], covariances[left]


def _merged_kernels(
    shares: Float64, centres: Float64, variances: Float64, most: int
) -> tuple[Float64, Float64, Float64]:
    """Merge pairs of kernels until `most` are left; each time the pair that costs least.

    The cost is the increase of the sum of squares (Ward, 1963).
    """
    n, k = centres.shape
    if n <= most:
        return shares, centres, variances
    shares, centres, variances = shares.copy(), centres.copy(), variances.copy()
    left = np.ones(n, bool)
    lengths = np.vecdot(centres, centres)

    def costs(i: int) -> Float64:
        """Return the cost of merging kernel i with each kernel, (n,)."""
        squares = np.maximum(lengths + lengths[i] - 2.0 * centres.dot(centres[i]), 0.0)
        added: Float64 = np.where(left, squares * shares * shares[i] / (shares + shares[i]), np.inf)
        added[i] = np.inf
        return added

    squares = np.maximum(lengths + lengths[:, None] - 2.0 * centres @ centres.T, 0.0)  # (n, n)
    cost = squares * shares * shares[:, None] / (shares + shares[:, None])
    np.fill_diagonal(cost, np.inf)
    nearest: NDArray[np.int64] = cost.argmin(axis=1)
    least = cost[np.arange(n), nearest]
    for _ in range(n - most):
        i = int(least.argmin())
        j = int(nearest[i])
        both = shares[i] + shares[j]
        spread = k * (shares[i] * variances[i] + shares[j] * variances[j]) + cost[i, j]
        centres[i] = (shares[i] * centres[i] + shares[j] * centres[j]) / both
        lengths[i] = centres[i].dot(centres[i])
        shares[i], variances[i], left[j] = both, spread / (both * k), False
        cost[j], cost[:, j], least[j] = np.inf, np.inf, np.inf
        cost[i] = cost[:, i] = costs(i)
        stale = left & ((nearest == i) | (nearest == j) | (cost[i] < least))
        stale[i] = True
        nearest[stale] = cost[stale].argmin(axis=1)
        least[stale] = cost[stale, nearest[stale]]
    return shares[left], centres[left], variances[left]
