"""The scores of one pass through the network, computed with few temporaries.

`network.losses` says what a score is made of, feature by feature; this says the same sums fast,
because it runs for every vector that is ever scored: once for the rows of a matrix, and once for a
vector by itself, where numpy's ways with many rows would cost more than the arithmetic.
"""

import functools
from collections.abc import Iterator

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.calibration import representable
from models.parts.mixture import Density, Mixture
from models.parts.network import LOG_VARIANCE_RANGE, Network, bernoulli, log_softmax

# Numbers in one block: 128 KiB of float64 stay in a core's cache, and below the size from which
# malloc asks the system for pages anew, which costs more than the arithmetic.
_BLOCK = 16_384
_FEWEST = 64  # rows in a block: fewer would leave the matrix product waiting for memory

_HALF = np.float32(0.5)
_LEAST, _MOST = map(np.float32, LOG_VARIANCE_RANGE)

Layer = tuple[Array, Array, Array]  # weight, bias, and zeros to rectify the layer's input with


class Scorer:
    """The score named `kind` under a network, as a function of scaled vectors.

    `elbo` is the negative evidence lower bound at the posterior's mean,
    -log p(x | z = mean(x)) + KL(q(z|x) || N(0, I)): one forward pass, no sampling.
    `reconstruction` leaves the divergence out. `fitted` puts the mixture p fitted to the codes,
    which replay draws from, in the place of N(0, I) (Tomczak & Welling, VAE with a VampPrior,
    2018, for why): -log p(x|z) - log p(z) - H(q(z|x)) at z = mean(x). Holds references to the
    network's arrays; safe to call from several threads.
    """

    def __init__(self, kind: str, network: Network, latents: Mixture | None = None) -> None:
        shape = network.shape
        self._network = network
        self._density = Density(latents) if latents is not None else None
        self._diverges = kind == "elbo"
        self._gaussian = shape.likelihood == "gaussian"
        self._latent = shape.latent
        self._encoder = _layers(network, "encoder")
        self._decoder = _layers(network, "decoder")
        self._blocks, self._numbers = shape.blocks, shape.numbers
        noise = np.maximum(network.tensors["noise"][0], shape.noise_floor).astype(np.float64)
        noise = noise[: shape.numbers]
        self._precision = np.exp(-0.5 * noise).astype(np.float32)  # (m,), a deviation's inverse
        self._constant = 0.5 * float((noise + LOG_2PI).sum()) if self._gaussian else 0.0
        if self._diverges:
            self._constant -= 0.5 * shape.latent
        self._ones = np.ones(shape.latent, np.float32)  # a product with them sums fastest
        if self._density is not None:
            self._constant -= 0.5 * shape.latent * (1.0 + LOG_2PI)  # of the posterior's entropy
        self.takes_one = self._gaussian and self._density is None and not self._blocks
        self._encode_one, self._decode_one = _flat(self._encoder), _flat(self._decoder)

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), a block at most: (n,) nats.

        Every score is a float32 number.
        """
        nats = self._nats(x).astype(np.float64)
        nats += self._constant
        return representable(nats)

    def one(self, x: Array) -> float:
        """Return the score of one scaled vector x (d,), where `takes_one`: the very same sums."""
        encoded = forward(self._encode_one, x)
        mean = encoded[: self._latent]
        residual = forward(self._decode_one, mean)
        np.subtract(x, residual, residual)
        np.multiply(residual, self._precision, residual)
        nats = _HALF * np.dot(residual, residual)
        if self._diverges:
            log_variance = log_variances(encoded, self._latent)
            variance = np.exp(log_variance)
            np.subtract(variance, log_variance, variance)
            nats += _HALF * (np.dot(variance, self._ones) + np.dot(mean, mean))
        return float(np.float32(float(nats) + self._constant))

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return what each feature adds to the score, (n, d), and what is expected of it."""
        contributions, _, decoded = self._network.losses(x)
        return contributions, decoded

    def _nats(self, x: Array) -> Array | Float64:
        """Return the scores but for the constant, (n,)."""
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
        if self._blocks:
            words = self._of_words(x, decoded)
            numbers = self._numbers
            residual = (x[:, :numbers] - decoded[:, :numbers]) * self._precision
            both: Float64 = words + _HALF * np.vecdot(residual, residual)
            return both
        if self._gaussian:
            residual = np.subtract(x, decoded, out=decoded)
            residual *= self._precision
            half: Array = _HALF * np.vecdot(residual, residual)
            return half
        logits = decoded.astype(np.float64)
        nats: Float64 = bernoulli(x, logits, self._network.shape).sum(axis=1)
        return nats

    def _of_words(self, x: Array, decoded: Array) -> Float64:
        """Return -log p of the categories of x (n, d), (n,), from the decoder's logits."""
        nats = np.zeros(len(x))
        for own in self._blocks:
            nats -= np.vecdot(x[:, own], log_softmax(decoded[:, own]))
        return nats


def blocks(n: int, d: int) -> Iterator[slice]:
    """Yield the rows of a matrix (n, d) in runs that a processor's cache can hold."""
    step = _rows(d)
    return (slice(start, start + step) for start in range(0, n, step))


def _rows(d: int) -> int:
    return max(_FEWEST, _BLOCK // d)


def _layers(network: Network, part: str) -> list[Layer]:
    tensors = network.tensors
    rows = _rows(network.shape.dimension)
    layers = []
    for i in range(len(network.shape.hidden) + 1):
        weight = tensors[f"{part}.{i}.weight"]
        layers.append((weight, tensors[f"{part}.{i}.bias"], _zeros(rows, len(weight))))
    return layers


def _flat(layers: list[Layer]) -> list[Layer]:
    """Return the layers for one x: bias (b,) and zeros (a,)."""
    return [(weight, bias[0], zeros[0]) for weight, bias, zeros in layers]


@functools.lru_cache(maxsize=256)
def _zeros(rows: int, width: int) -> Array:
    """Return zeros that are only ever read: the system lends one page for all of them."""
    zeros = np.zeros((rows, width), np.float32)
    zeros.flags.writeable = False
    return zeros


def log_variances(encoded: Array, latent: int) -> Array:
    """Return the clipped log variances of an encoder's answer (..., 2 k), (..., k)."""
    clipped = np.maximum(encoded[..., latent:], _LEAST)
    return np.minimum(clipped, _MOST, out=clipped)


def forward(layers: list[Layer], x: Array) -> Array:
    """Return what a perceptron makes of x (n, a), or of one x (a,) with layers that are `_flat`."""
    weight, bias, _ = layers[0]
    x = np.dot(x, weight)
    np.add(x, bias, x)
    for weight, bias, zeros in layers[1:]:
        # With an array of zeros this takes a quarter of the time that it takes with the number 0.
        np.maximum(x, zeros[: len(x)], out=x)
        x = np.dot(x, weight)
        np.add(x, bias, x)
    return x
