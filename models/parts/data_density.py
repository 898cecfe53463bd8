"""A density of vectors, bounded in size: Gaussians and round kernels in principal directions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.components import Components, widened
from models.parts.density_pass import RIDGE, DensityPass, Kernels, Space
from models.parts.mixture import MODES, Density, Mixture

DIRECTIONS = 40  # the number of principal directions in which the density is a mixture
WHITENED = 256  # the number of directions with a variance of their own; the others share one
NUMBERS = 16_384  # the most numbers in all covariances together: they bound the cost per vector
KERNELS, ROWS_A_KERNEL = 400, 4  # the most kernels, and the fewest vectors for each
SHRINK = 2.0  # the pooled covariance weighs like k plus this many vectors in each Gaussian
DESCENTS = 5  # steps of k-means

# The names of the arrays of each part in an artifact.
SPACE_ARRAYS, KERNEL_ARRAYS = Space._fields, Kernels._fields
MIXTURE_ARRAYS = ("weights", "means", "factors")


@dataclass(frozen=True)
class DataDensity:
    """A density of vectors z (n, d) of one view: half of it Gaussians, half round kernels.

    The Gaussians of `mixture` and the `kernels` are over the codes of `space`.
    """

    space: Space
    mixture: Mixture
    kernels: Kernels
    _prepared: DensityPass = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        prepared = DensityPass(self.space, self.mixture, self.kernels)
        object.__setattr__(self, "_prepared", prepared)

    @classmethod
    def fit(cls, z: Array, seed: int, within: Array | None = None) -> Self:
        """Fit to vectors z (n, d) of about unit variance.

        If other vectors `within` (m, d) are given, the space of the codes is fitted to them.
        """
        space = _fit_space((z if within is None else within).astype(np.float64))
        codes = space.codes(z)
        mixture = Mixture.fit(codes, seed, most=_most_gaussians(codes.shape[1]))
        mixture = _with_pooled_covariance(mixture, codes, space.ridge)
        return cls(space, mixture, _fit_kernels(codes, _kernel_centres(codes, seed), space.ridge))

    def refitted(self, z: Array) -> Self:
        """Return the same components estimated from other vectors z (n, d) in one step."""
        codes, ridge = self.space.codes(z), self.space.ridge
        mixture = _with_pooled_covariance(self.mixture.moved(codes, codes), codes, ridge)
        kernels = _fit_kernels(codes, self.kernels.centres.astype(np.float32), ridge)
        return replace(self, mixture=mixture, kernels=kernels)

    @property
    def components(self) -> Components:
        """Gaussians and kernels over this density's own codes."""
        mixture, (centres, variances, log_shares) = self.mixture, self.kernels
        factors, shares = mixture.factors.astype(np.float64), np.exp(log_shares)
        return Components(
            mixture.weights / mixture.weights.sum(),
            mixture.means.astype(np.float64),
            factors @ factors.transpose(0, 2, 1),
            shares / shares.sum(),
            centres,
            variances,
        )

    def components_in(self, other: Self, to: Callable[[Float64], Float64]) -> Components:
        """Return these components over the codes of another density.

        `to` maps this one's vectors z (n, d) to the other's.
        """

        def coded(codes: Float64) -> Float64:
            return other.space.wide_codes(to(self.space.vectors(codes)))

        return self.components.mapped(coded, other.space.ridge)

    def joined_with(self, old: Components, share_old: float) -> Self:
        """Return the density that also has the components `old` of the same codes."""
        joined = old.joined_with(self.components, share_old)
        joined = joined.merged(_most_gaussians(len(self.space.directions)), KERNELS)
        factors = np.linalg.cholesky(widened(joined.covariances)).astype(np.float32)
        return replace(
            self,
            mixture=Mixture(joined.weights, joined.means.astype(np.float32), factors),
            kernels=Kernels(joined.centres, joined.variances, np.log(joined.shares)),
        )

    def log_density_and_distance(self, z: Array) -> tuple[Float64, Float64]:
        """Return the log density at each row of z (n, d), and its distance from the kernels.

        The log density (n,) is in nats. The distance (n,) is from the nearest centre, in units of
        z.
        """
        return self._prepared(z)

    def distance_in_plane(self, z: Array) -> Float64:
        """Return the distance of z (n, d) from the nearest centre, in the codes' plane, (n,)."""
        return self._prepared.distance_in_plane(z)

    def of_one(self, z: Array) -> tuple[float, float]:
        """Return the same as `log_density_and_distance` for one vector z (d,)."""
        return self._prepared.of_one(z)

    def explain(self, z: NDArray[Any]) -> tuple[Float64, Float64]:
        """Return each feature's share of the distance of z, (n, d), and the expected values.

        The expected values (n, d) are the mean of the Gaussian or kernel that explains the row
        best. The shares sum to half the squared Mahalanobis distance from this mean: the nats by
        which the mean is more likely. A share is negative if the feature's value makes the values
        of other features plausible.
        """
        space, (centres, variances, _) = self.space, self.kernels
        wide = space.wide_codes(z)  # (n, k)
        codes = wide.astype(np.float32)
        kernels = self._prepared.under_kernels(codes)  # (n, m)
        gaussians = self._prepared.gaussians.joint(codes)  # (n, K)
        is_gaussian = gaussians.max(axis=1) > kernels.max(axis=1)
        mode_of, kernel_of = gaussians.argmax(axis=1), kernels.argmax(axis=1)
        middle = np.where(is_gaussian[:, None], self.mixture.means[mode_of], centres[kernel_of])
        pull = (wide - middle) / variances[kernel_of, None]  # covariance^-1 (wide - middle), (n, k)
        inverse = np.linalg.inv(self.mixture.factors.astype(np.float64))  # (K, k, k)
        for mode in np.unique(mode_of[is_gaussian]):
            rows = is_gaussian & (mode_of == mode)
            pull[rows] = (wide - middle)[rows] @ inverse[mode].T @ inverse[mode]
        expected, pulls = space.vectors(middle), pull @ space.directions
        if len(space.tail):
            pulls += (((z - space.mean) @ space.tail.T) / space.tail_variances) @ space.tail
        return 0.5 * (z - expected) * pulls, expected

    def sample(self, n: int, rng: np.random.Generator) -> Float64:
        """Draw n vectors, (n, d)."""
        space, (centres, variances, log_shares) = self.space, self.kernels
        codes = self.mixture.sample(n, rng).astype(np.float64)
        share = np.exp(log_shares)
        kernel_of = rng.choice(len(share), size=n, p=share / share.sum())
        spread = np.sqrt(variances[kernel_of])[:, None] * rng.standard_normal(codes.shape)
        codes = np.where(rng.random((n, 1)) < 0.5, centres[kernel_of] + spread, codes)
        z = space.vectors(codes)
        if t := len(space.tail):
            z += (rng.standard_normal((n, t)) * np.sqrt(space.tail_variances)) @ space.tail
        if codes.shape[1] + t < len(space.mean):
            noise = math.sqrt(space.rest[0]) * rng.standard_normal(z.shape)
            for axes in (space.directions.astype(np.float64) * space.scale[0], space.tail):
                noise -= (noise @ axes.T) @ axes
            z += noise
        return z

    def to_tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, each beginning with `prefix`."""
        parts = (
            (self.space, SPACE_ARRAYS),
            (self.mixture, MIXTURE_ARRAYS),
            (self.kernels, KERNEL_ARRAYS),
        )
        return {prefix + name: getattr(part, name) for part, names in parts for name in names}

    @classmethod
    def from_tensors(cls, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Return the density on which `to_tensors` was called."""

        def arrays(names: tuple[str, ...]) -> list[NDArray[Any]]:
            return [tensors[prefix + name] for name in names]

        return cls(
            Space(*arrays(SPACE_ARRAYS)),
            Mixture(*arrays(MIXTURE_ARRAYS)),
            Kernels(*arrays(KERNEL_ARRAYS)),
        )


def _most_gaussians(k: int) -> int:
    """Return the most Gaussians over k dimensions."""
    return max(1, min(MODES, NUMBERS // k**2))


def _fit_space(wide: Float64) -> Space:
    """Return the space of the codes of vectors like `wide` (n, d)."""
    n, d = wide.shape
    mean = wide.mean(axis=0)
    variances, axes = _principal_axes(wide - mean)
    k = min(DIRECTIONS, len(axes.T), max(1, n // 10))
    t = min(WHITENED, len(axes.T))
    scale = math.sqrt(variances[0])
    return Space(
        mean,
        np.ascontiguousarray(axes[:, :k].T / scale).astype(np.float32),
        np.array([scale]),
        np.ascontiguousarray(axes[:, k:t].T).astype(np.float32),
        variances[k:t],
        np.array([float(variances[t:].mean()) if t < d else 1.0]),
    )


def _principal_axes(centred: Float64) -> tuple[Float64, Float64]:
    """Return the variances (d,) of centred vectors (n, d), descending, and their axes (d, m).

    With fewer vectors than features, only m < n axes have a variance. They come from the vectors'
    inner products, a matrix of n x n instead of d x d.
    """
    n, d = centred.shape
    if n >= d:
        variances, axes = np.linalg.eigh(centred.T @ centred / n)
        return np.maximum(variances[::-1], 0.0) + RIDGE, axes[:, ::-1]
    eigenvalues, eigenvectors = np.linalg.eigh(centred @ centred.T / n)
    eigenvalues, eigenvectors = eigenvalues[::-1], eigenvectors[:, ::-1]
    m = max(1, int((eigenvalues > RIDGE * max(eigenvalues[0], RIDGE)).sum()))
    axes, _ = np.linalg.qr(centred.T @ eigenvectors[:, :m])
    variances = np.zeros(d)
    variances[:m] = np.maximum(eigenvalues[:m], 0.0)
    return variances + RIDGE, axes


def _with_pooled_covariance(mixture: Mixture, codes: Array, ridge: float) -> Mixture:
    """Return the mixture's Gaussians, each with a share of the pooled covariance of codes (n, k).

    They have the narrower `ridge` instead of the one that `Mixture.fit` adds to each variance,
    which is wider than the differences between nearly equal features.
    """
    k = codes.shape[1]
    shares = Density(mixture).shares(codes)[0]
    counts = shares.sum(axis=0)
    separate = np.empty((len(counts), k, k))  # the covariance of each Gaussian's codes
    for covariance, share, mean in zip(separate, shares.T, mixture.means, strict=True):
        centred = codes - mean.astype(np.float64)
        covariance[:] = (share[:, None] * centred).T @ centred / max(share.sum(), 1e-9)
    pooled = (separate * (counts / counts.sum())[:, None, None]).sum(axis=0)
    weight = k + SHRINK
    mixed = (separate * counts[:, None, None] + weight * pooled) / (counts + weight)[:, None, None]
    mixed += ridge * np.eye(k)
    factors = np.linalg.cholesky(widened(mixed)).astype(np.float32)
    return Mixture(mixture.weights, mixture.means, factors)


def _kernel_centres(codes: Array, seed: int) -> Array:
    """Return the centres (m, k) of kernels over codes (n, k), found by k-means."""
    n = len(codes)
    rng = np.random.default_rng([seed, 12])
    centres = codes[rng.permutation(n)[: min(KERNELS, max(1, n // ROWS_A_KERNEL))]]
    for _ in range(DESCENTS):
        centres = _group_means(codes, _nearest_centres(codes, centres))[0]
    return centres


def _fit_kernels(codes: Array, centres: Array, ridge: float) -> Kernels:
    """Return a kernel about the mean of the codes (n, k) nearest to each of `centres` (m, k)."""
    n, k = codes.shape
    means, group_of, counts = _group_means(codes, _nearest_centres(codes, centres))
    squares = np.square(codes - means[group_of]).sum(axis=1, dtype=np.float64)
    pooled = squares.sum() / max(1, n - len(means)) / k
    sums = np.bincount(group_of, squares, len(means))  # of the squares in each group
    variances = (sums + 4.0 * k * pooled) / ((counts + 3.0) * k) + 10.0 * ridge
    return Kernels(means.astype(np.float64), variances, np.log(counts / n))


def _group_means(
    codes: Array, group_of: NDArray[np.int64]
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return the mean and the size of each group; `group_of` (n,) is the group of each code."""
    _, group_of, counts = np.unique(group_of, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(group_of, column, len(counts)) for column in codes.T], axis=1)
    return (sums / counts[:, None]).astype(np.float32), group_of, counts


def _nearest_centres(codes: Array, centres: Array) -> NDArray[np.int64]:
    distances = codes @ (-2.0 * centres.T) + np.vecdot(centres, centres)
    return distances.argmin(axis=1)
