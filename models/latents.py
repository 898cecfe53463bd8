"""Where the aggregate posterior really is: a mixture of Gaussians fitted to encoded vectors.

The prior N(0, I) is where a VAE is asked to put its codes, not where it puts them; what is drawn
between the codes decodes to vectors that never were, and replaying those teaches them. Replay
therefore draws from this mixture. Its modes are the version's regimes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.network import Array


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
    def fit(cls, z: Array, seed: int) -> Self:
        """Fit to codes z (n, k), with as many modes as the number of codes can tell apart."""
        from sklearn.mixture import GaussianMixture

        n, k = z.shape
        # A mode needs about five codes for each dimension of its covariance to be worth having.
        modes = int(np.clip(n // max(5 * k, 30), 1, 40))
        fitted = GaussianMixture(
            modes, reg_covar=1e-3, max_iter=60, tol=1e-2, init_params="k-means++",
            random_state=seed % 2**32,
        )  # fmt: skip
        fitted.fit(z.astype(np.float64))
        factors = np.linalg.cholesky(fitted.covariances_)
        return cls(fitted.weights_, fitted.means_.astype(np.float32), factors.astype(np.float32))

    def assign(self, z: Array) -> NDArray[np.int64]:
        """Return the mode that each code of z (n, k) most likely came from, (n,)."""
        assigned: NDArray[np.int64] = self.log_densities(z).argmax(axis=1)
        return assigned

    def log_densities(self, z: Array) -> NDArray[np.float64]:
        """Return log w_m N(z; m) + const of each code of z (n, k) under each mode, (n, K)."""
        densities = np.empty((len(z), len(self.weights)))
        for mode, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            whitened = np.linalg.solve(factor.astype(np.float64), (z - mean).T)  # (k, n)
            log_weight = np.log(max(float(self.weights[mode]), 1e-300))
            log_volume = np.log(np.diag(factor)).sum()
            densities[:, mode] = log_weight - log_volume - 0.5 * np.square(whitened).sum(axis=0)
        return densities

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n codes, (n, k)."""
        mode = rng.choice(len(self.weights), size=n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.means.shape[1]), dtype=np.float32)
        codes: Array = self.means[mode] + np.einsum("nij,nj->ni", self.factors[mode], noise)
        return codes
