"""A mixture of Gaussians fitted to encoded vectors: an estimate of the aggregate posterior.

A VAE is trained towards the prior N(0, I), but its codes do not fill the prior. A draw between the
codes decodes to a vector unlike any learned one, and its replay would teach such vectors. Replay
therefore draws from this mixture. Its modes are the version's regimes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import LOG_2PI, Array, Float64

MODES = 40  # the most modes
RIDGE = 1e-3  # added to every variance, so that no mode is flatter than this
MOST_STEPS = 60  # the most steps of a fit
TOLERANCE = 0.01  # a fit ends after a step that gains fewer nats than this
MOST_CELLS = 2**22  # the most cells of factors that drawing copies at a time: 16 MiB


@dataclass(frozen=True, slots=True)
class Mixture:
    """K Gaussians over k latents: weights (K,), means (K, k), Cholesky factors (K, k, k)."""

    weights: NDArray[np.float64]
    means: Array
    factors: Array

    @classmethod
    def prior(cls, latent: int) -> Self:
        """Return N(0, I) over `latent` dimensions."""
        return cls(
            np.ones(1),
            np.zeros((1, latent), np.float32),
            np.eye(latent, dtype=np.float32)[None],
        )

    @classmethod
    def fit(cls, z: Array, seed: int, most: int = MODES) -> Self:
        """Fit to codes z (n, k), with at most `most` modes and as many as n codes can separate.

        Expectation-maximisation (Dempster, Laird & Rubin, 1977) from seeds far apart
        (Arthur & Vassilvitskii, k-means++, 2007).
        """
        n, k = z.shape
        # A mode needs about five codes for each dimension of its covariance.
        modes = int(np.clip(n // max(5 * k, 30), 1, most))
        wide = z.astype(np.float64)
        seeds = spread_seeds(wide, modes, np.random.default_rng([seed, 14]))
        narrowest = np.sqrt(np.float32(RIDGE)) * np.eye(k, dtype=np.float32)
        fitted = cls(
            np.full(modes, 1.0 / modes),
            seeds.astype(np.float32),
            np.repeat(narrowest[None], modes, axis=0),
        )
        before = -np.inf
        for _ in range(MOST_STEPS):
            shares, log = Density(fitted).shares(z)
            fitted, now = cls._with_shares(shares, wide), float(log.mean())
            if now - before < TOLERANCE:
                break
            before = now
        return fitted

    def moved(self, z: Array, to: Array) -> Self:
        """Return the mixture for new codes `to` (n, j) of the vectors with codes z (n, k).

        Each mode keeps its vectors. This serves a new network, whose codes have another meaning.
        """
        return self._with_shares(Density(self).shares(z)[0], to.astype(np.float64))

    @classmethod
    def _with_shares(cls, shares: Float64, z: Float64) -> Self:
        """Return the mixture whose modes have these `shares` (n, K) of the codes z (n, k)."""
        weights = shares.sum(axis=0) + 1e-9
        means = (shares.T @ z) / weights[:, None]  # (K, k)
        squares = np.stack([(share[:, None] * z).T @ z for share in shares.T])  # (K, k, k)
        covariances = squares / weights[:, None, None] - means[:, :, None] * means[:, None]
        covariances += RIDGE * np.eye(z.shape[1])
        factors = np.linalg.cholesky(covariances).astype(np.float32)
        return cls(weights / weights.sum(), means.astype(np.float32), factors)

    def assign(self, z: Array) -> NDArray[np.int64]:
        """Return the most likely mode of each code of z (n, k), (n,)."""
        return self.log_densities(z).argmax(axis=1)

    def log_densities(self, z: Array) -> NDArray[np.float64]:
        """Return log w_m N(z; m) of each code of z (n, k) under each mode, (n, K)."""
        return Density(self).joint(z)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n codes, (n, k)."""
        mode = rng.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.means.shape[1]), dtype=np.float32)
        codes: Array = self.means[mode]
        # A few codes at a time: each needs a copy of its mode's factor, (k, k).
        step = max(1, MOST_CELLS // noise.shape[1] ** 2)
        for start in range(0, n, step):
            part = slice(start, start + step)
            codes[part] += np.einsum("nij,nj->ni", self.factors[mode[part]], noise[part])
        return codes


def spread_seeds(z: Float64, n: int, rng: np.random.Generator) -> Float64:
    """Return n of the codes z (m, k) that lie far apart, (n, k), by greedy k-means++.

    Each next code is the best of a few candidates. A candidate is drawn with a chance proportional
    to its squared distance from the nearest chosen code, as in Arthur & Vassilvitskii and
    scikit-learn.
    """
    n_candidates = 2 + int(np.log(n))
    chosen = [int(rng.integers(len(z)))]
    nearest = np.square(z - z[chosen[0]]).sum(axis=1)
    lengths = np.vecdot(z, z)
    for _ in range(n - 1):
        ends = np.cumsum(nearest)
        candidates = ends.searchsorted(rng.random(n_candidates) * ends[-1])
        candidates = np.minimum(candidates, len(z) - 1)
        squares = lengths + lengths[candidates, None] - 2.0 * (z[candidates] @ z.T)  # (c, m)
        np.minimum(np.maximum(squares, 0.0), nearest, out=squares)
        best = int(squares.sum(axis=1).argmin())
        chosen.append(int(candidates[best]))
        nearest = squares[best]
    return z[chosen]


class Density:
    """A mixture's density prepared for many codes: one matrix product whitens for all modes."""

    def __init__(self, mixture: Mixture) -> None:
        modes, k = mixture.means.shape
        inverse = np.linalg.inv(mixture.factors.astype(np.float64))  # (K, k, k)
        # (z, 1) times this (k + 1, K k) is z whitened for each mode.
        self._whiten = np.empty((k + 1, modes * k), np.float32)
        self._whiten[:k] = inverse.transpose(2, 0, 1).reshape(k, modes * k)
        center = np.einsum("mij,mj->mi", inverse, mixture.means.astype(np.float64))
        self._whiten[k] = -center.reshape(modes * k)
        log_volume = np.log(np.diagonal(mixture.factors, axis1=1, axis2=2)).sum(axis=1)
        log_weight = np.log(np.maximum(mixture.weights, 1e-300))
        self._constant: Float64 = log_weight - log_volume - 0.5 * k * LOG_2PI
        self._twice_constant, self._modes = 2.0 * self._constant, (modes, k)

    def joint(self, z: Array) -> Float64:
        """Return log(weight of a mode times its density at z) for codes z (n, k), (n, K) nats."""
        whitened = np.dot(z, self._whiten[:-1])
        whitened += self._whiten[-1]
        whitened = whitened.reshape(len(z), len(self._constant), -1)
        return self._constant - 0.5 * np.vecdot(whitened, whitened)

    def largest_joint(self, z: Array) -> float:
        """Return the largest value of `joint` for one code, given as (z, 1) (k + 1,)."""
        whitened = z.dot(self._whiten).reshape(self._modes)
        squares = np.vecdot(whitened, whitened) - self._twice_constant
        return -0.5 * float(squares.item(squares.argmin()))

    def log(self, z: Array) -> Float64:
        """Return the log density at each code of z (n, k), (n,) nats."""
        return self._relative(z)[1]

    def shares(self, z: Array) -> tuple[Float64, Float64]:
        """Return each mode's share of each code of z (n, k), (n, K), and log densities, (n,)."""
        relative, log = self._relative(z)
        return relative / relative.sum(axis=1, keepdims=True), log

    def _relative(self, z: Array) -> tuple[Float64, Float64]:
        """Return each mode's density relative to the largest, (n, K), and log densities, (n,)."""
        joint = self.joint(z)
        largest = joint.max(axis=1)
        relative = np.exp(joint - largest[:, None])
        log: Float64 = largest + np.log(relative.sum(axis=1))
        return relative, log
