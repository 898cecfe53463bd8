"""Scores that see more than one pass through the network tells, each at a stated cost.

All take scaled vectors x (n, d) and return (n,), float32-valued. Costs are in passes of the
network, one being what `elbo` takes. Which of them earn their cost is measured in
`docs/decisions/18-richer-scores.md`.
"""

import numpy as np

from models.bank import Bank
from models.calibration import representable
from models.latents import Density, Mixture
from models.network import LOG_2PI, Array, Float64, Network
from models.scores import Scorer, forward, log_variances

SAMPLES = 32  # of each posterior
NEIGHBOURS = 10
LOCAL = 30  # neighbours that a local model is fitted to


class ImportanceWeighted(Scorer):
    """`iwae`: an estimate of -log p(x) that is tighter than the evidence lower bound.

    Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, 2016:

        -log 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x),   z_s = m(x) + s(x) e_s

    with p(z) the fitted mixture, which replay draws from, and the same S draws e_s for every
    vector, so that a vector always has the same score. S decoder passes.
    """

    def __init__(self, network: Network, latents: Mixture) -> None:
        super().__init__("reconstruction", network)
        self._prior = Density(latents)
        self._constant -= 0.5 * network.shape.latent * LOG_2PI  # of the posterior's density
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
        nats: Float64 = np.log(SAMPLES) - np.logaddexp.reduce(weights)
        return nats


class Hidden(Scorer):
    """`hidden`: how far a vector's path through the encoder is from its reconstruction's.

    Kim et al., RaPP: novelty detection with reconstruction along projection pathway, 2020, the
    simple aggregation: with h_0(x) = x and h_i(x) the i-th hidden layer of the encoder,

        sum_i || h_i(x) - h_i(f(m(x))) ||^2

    One pass and the encoder's hidden layers twice more. Scaled units, squared.
    """

    def __init__(self, network: Network) -> None:
        super().__init__("reconstruction", network)

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        y = self._network.decode(self._network.encode(x)[0])
        total = np.vecdot(x - y, x - y).astype(np.float64)
        for weight, bias, _ in self._encoder[:-1]:
            x, y = (np.maximum(each @ weight + bias, 0.0) for each in (x, y))
            total += np.vecdot(x - y, x - y)
        return representable(total)


class Neighbours:
    """`neighbours`: the distance to the tenth nearest reconstruction of a generated vector.

        || x - b_(10) ||,   b_i = f(z_i),   z_i = m(g_i),   g_i drawn from the generator

    The k-nearest-neighbour distance (Ramaswamy et al., 2000) is among the best detectors there
    are when it keeps all data; here the generator stands in for them. As many b as vectors were
    learned, 1,000 to 10,000: m d multiplications, as a dense layer of m units. Scaled units.
    """

    def __init__(self, network: Network, codes: Array) -> None:
        self._bank = Bank(network.decode(codes))

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        return representable(self._bank.neighbours(x, NEIGHBOURS)[1][:, -1])

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's squared distance from the neighbours' mean, and that mean."""
        expected = self._bank[self._bank.neighbours(x, NEIGHBOURS)[0]].mean(axis=1)
        return np.square(x.astype(np.float64) - expected), expected


class JustInTime:
    """`jit`: what a linear model of the nearest generated vectors, made for x, leaves of it.

    Cheng & Chiu, A new data-based methodology for nonlinear process modeling, 2004, for models
    made at query time. With c the mean of the 30 nearest of the bank and C (30, d) what they
    differ from it by, over sqrt(30), r = x - c is fitted by ridge regression on the rows of C:

        min_w || r - C'w ||^2 + l ||w||^2  =  l r' (C'C + l I)^-1 r,   l = trace(C C') / 30

    the Mahalanobis distance in the local covariance, times its mean variance. A bank's cost as
    `neighbours`, and a system of 30 equations for each vector. Scaled units, squared.
    """

    def __init__(self, network: Network, codes: Array) -> None:
        self._bank = Bank(network.decode(codes))

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        residual, spread, solution = self._fit(x)
        explained = np.einsum("nid,nd,ni->n", spread, residual, solution, optimize=True)
        return representable(np.vecdot(residual, residual) - explained)

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's squared distance from what the local model says, and that."""
        residual, spread, solution = self._fit(x)
        left = residual - np.einsum("ni,nid->nd", solution, spread)
        return np.square(left), (x - left).astype(np.float32)

    def _fit(self, x: Array) -> tuple[Float64, Float64, Float64]:
        """Return r (n, d), C (n, 30, d) and w (n, 30)."""
        near = self._bank[self._bank.neighbours(x, LOCAL)[0]].astype(np.float64)  # (n, 30, d)
        center = near.mean(axis=1)
        spread = (near - center[:, None]) / np.sqrt(LOCAL)
        residual = x - center
        gram = spread @ spread.transpose(0, 2, 1)  # (n, 30, 30)
        ridge = np.maximum(np.trace(gram, axis1=1, axis2=2) / LOCAL, 1e-9)
        gram += ridge[:, None, None] * np.eye(LOCAL)
        right = spread @ residual[..., None]
        return residual, spread, np.linalg.solve(gram, right)[..., 0]
