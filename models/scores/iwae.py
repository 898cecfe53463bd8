"""The importance-weighted bound on -log p(x) as a score."""

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.mixture import Density, Mixture
from models.parts.network import Network
from models.scores.elbo import Scorer, forward, log_variances

SAMPLES = 32  # samples from each posterior


class ImportanceWeighted(Scorer):
    """`iwae`: an estimate of -log p(x) that is tighter than the evidence lower bound.

    Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, 2016:

        -log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x),   z_s = m(x) + s(x) e_s

    p(z) is the fitted mixture, from which replay draws. The S draws e_s are the same for every
    vector, so that a vector always has the same score. It costs S decoder passes.
    """

    def __init__(self, network: Network, latents: Mixture) -> None:
        super().__init__("reconstruction", network)
        self._prior = Density(latents)
        # the constant of the posterior's density
        self._constant -= 0.5 * network.shape.latent * LOG_2PI
        self._noise = np.random.default_rng(0).standard_normal(
            (SAMPLES, network.shape.latent), dtype=np.float32
        )

    def _nats(self, x: Array) -> Float64:
        encoded = forward(self._encoder, x)
        mean, log_variance = encoded[:, : self._latent], log_variances(encoded, self._latent)
        deviation = np.exp(np.float32(0.5) * log_variance)
        log_volume = 0.5 * log_variance.sum(axis=1, dtype=np.float64)
        weights = np.empty((SAMPLES, len(x)))
        for s, noise in enumerate(self._noise):
            z = mean + deviation * noise
            misfit = self._misfit(x, forward(self._decoder, z))
            weights[s] = self._prior.log(z) - misfit + log_volume + 0.5 * float(noise @ noise)
        return np.log(SAMPLES) - np.logaddexp.reduce(weights)
