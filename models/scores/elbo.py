"""The scores that need one pass through the network, computed with few temporary arrays.

`network.losses` gives the parts of a score, feature by feature. This module computes the same sums
fast, because it runs for every scored vector. A single vector has a path of its own: for it,
numpy's overhead for matrices would cost more than the arithmetic.
"""

from collections.abc import Iterator

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.calibration import representable
from models.parts.mixture import Density, Mixture
from models.parts.network import LOG_VARIANCE_RANGE, Network, bernoulli, log_softmax

# Numbers in one block: 128 KiB of float64. They fit a core's cache. They also stay below the size
# at which malloc asks the system for new pages, which costs more than the arithmetic.
_BLOCK = 16_384
_FEWEST = 64  # rows in a block: with fewer, the matrix product waits for memory

_HALF = np.float32(0.5)
_LEAST, _MOST = map(np.float32, LOG_VARIANCE_RANGE)

# A weight (a, b), and (b,): the bias of the last layer; in other layers, the rectifier's bound.
Layer = tuple[Array, Array]


class Scorer:
    """The score `elbo`, `reconstruction` or `fitted` of a network, as a function of scaled vectors.

    `elbo` is the negative evidence lower bound at the posterior's mean, -log p(x | z = mean(x)) +
    KL(q(z|x) || N(0, I)): one forward pass, no sampling. `reconstruction` omits the divergence.
    `fitted` replaces N(0, I) by p, the mixture `latents` from which replay draws: -log p(x|z) -
    log p(z) - H(q(z|x)) at z = mean(x), as Tomczak & Welling advise (VAE with a VampPrior, 2018).
    The scorer holds references to the network's arrays. It is safe to call from several threads.
    """

    def __init__(self, name: str, network: Network, latents: Mixture | None = None) -> None:
        shape = network.shape
        self._network = network
        self._density = Density(latents) if latents is not None else None
        self._diverges = name == "elbo"
        self._gaussian = shape.likelihood == "gaussian"
        self._latent = shape.latent
        self._encoder = layers(network, "encoder")
        self._decoder = layers(network, "decoder")
        self._categories = shape.slot_slices
        noise = np.maximum(network.tensors["noise"][0], shape.noise_floor).astype(np.float64)
        noise = noise[: shape.numbers]
        # (m,), the inverse of each deviation
        self._precision = np.exp(-0.5 * noise).astype(np.float32)
        self._constant = 0.5 * float((noise + LOG_2PI).sum()) if self._gaussian else 0.0
        if self._diverges:
            self._constant -= 0.5 * shape.latent
        self._ones = np.ones(shape.latent, np.float32)  # a product with ones is the fastest sum
        if self._density is not None:
            # the constant of the posterior's entropy
            self._constant -= 0.5 * shape.latent * (1.0 + LOG_2PI)
        self.takes_one = self._gaussian and self._density is None and not self._categories

    def __call__(self, x: Array) -> Float64:
        """Return the scores (n,) in nats of one block of scaled vectors x (n, d).

        Every score is a float32 number.
        """
        nats = self._nats(x).astype(np.float64)
        nats += self._constant
        return representable(nats)

    def of_one(self, x: Array) -> float:
        """Return the score of one scaled vector x (d,) if `takes_one`; the result is the same."""
        encoded = forward(self._encoder, x)
        mean = encoded[: self._latent]
        residual = forward(self._decoder, mean)
        np.subtract(x, residual, residual)
        residual *= self._precision
        nats = _HALF * residual.dot(residual)
        if self._diverges:
            log_variance = log_variances(encoded, self._latent)
            variance = np.exp(log_variance)
            variance -= log_variance
            nats += _HALF * (variance.dot(self._ones) + mean.dot(mean))
        return float(np.float32(float(nats) + self._constant))

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's contribution to the score, and its expected value, (n, d) each."""
        contributions, _, decoded = self._network.losses(x)
        return contributions, decoded

    def _nats(self, x: Array) -> Array | Float64:
        """Return the scores without the constant term, (n,)."""
        encoded = forward(self._encoder, x)
        mean = encoded[:, : self._latent]
        decoded = forward(self._decoder, mean)
        nats = self._misfit(x, decoded)
        if self._density is not None:
            entropy = 0.5 * log_variances(encoded, self._latent).sum(axis=1, dtype=np.float64)
            nats = nats - self._density.log(mean) - entropy
        elif self._diverges:
            log_variance = log_variances(encoded, self._latent)
            variance = np.exp(log_variance)
            variance -= log_variance
            divergence = np.dot(variance, self._ones)
            divergence += np.vecdot(mean, mean)
            divergence *= _HALF
            nats += divergence
        return nats

    def _misfit(self, x: Array, decoded: Array) -> Array | Float64:
        """Return -log p(x|z) without its constant, (n,), from the decoder's output (n, d)."""
        if self._categories:
            m = len(self._precision)
            residual = (x[:, :m] - decoded[:, :m]) * self._precision
            categories = self._misfit_of_categories(x, decoded)
            return categories + _HALF * np.vecdot(residual, residual)
        if self._gaussian:
            residual = np.subtract(x, decoded, out=decoded)
            residual *= self._precision
            return _HALF * np.vecdot(residual, residual)
        logits = decoded.astype(np.float64)
        return bernoulli(x, logits, self._network.shape).sum(axis=1)

    def _misfit_of_categories(self, x: Array, decoded: Array) -> Float64:
        """Return -log p of the categories of x (n, d), (n,), from the decoder's logits."""
        nats = np.zeros(len(x))
        for slots in self._categories:
            nats -= np.vecdot(x[:, slots], log_softmax(decoded[:, slots]))
        return nats


def row_blocks(n: int, d: int) -> Iterator[slice]:
    """Yield slices of the rows of a matrix (n, d), in blocks that fit a core's cache."""
    step = max(_FEWEST, _BLOCK // d)
    return (slice(start, start + step) for start in range(0, n, step))


def layers(network: Network, part: str) -> list[Layer]:
    """Return the layers of encoder or decoder; each bias but the last is moved to the next layer.

    max(h + b, 0) W + c = max(h, -b) W + (b W + c), so a layer is rectified at minus its bias.
    """
    tensors, folded = network.tensors, list[Layer]()
    last = len(network.shape.hidden)
    carried = np.zeros(1)
    for i in range(last + 1):
        weight = tensors[f"{part}.{i}.weight"]
        bias = tensors[f"{part}.{i}.bias"][0].astype(np.float64)
        carried = bias + (carried @ weight.astype(np.float64) if i else 0.0)
        folded.append((weight, (carried if i == last else -carried).astype(np.float32)))
    return folded


def log_variances(encoded: Array, latent: int) -> Array:
    """Return the clipped log variances (..., k) in an encoder's output (..., 2 k)."""
    clipped = np.maximum(encoded[..., latent:], _LEAST)
    return np.minimum(clipped, _MOST, out=clipped)


def forward(perceptron: list[Layer], x: Array) -> Array:
    """Return a perceptron's output for x (n, a), or for one x (a,)."""
    for weight, floor in perceptron[:-1]:
        x = x.dot(weight)
        np.maximum(x, floor, out=x)
    weight, bias = perceptron[-1]
    x = x.dot(weight)
    x += bias
    return x
