"""The scores of one pass through the network, computed with few temporaries.

`network.losses` says what a score is made of, feature by feature; this says the same sums fast,
because it runs for every vector that is ever scored: once for the rows of a matrix, and once for a
vector by itself, where numpy's ways with many rows would cost more than the arithmetic.
"""

from collections.abc import Iterator

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.calibration import representable
from models.parts.mixture import Density, Mixture
from models.parts.network import LOG_VARIANCE_RANGE, Network, bernoulli, log_softmax

# Numbers in one block: 128 KiB of float64 stay in a core's cache, and below the size from which
# malloc asks the system for new pages, which costs more than the arithmetic.
_BLOCK = 16_384
_FEWEST = 64  # rows in a block: fewer would leave the matrix product waiting for memory

_HALF = np.float32(0.5)
_LEAST, _MOST = map(np.float32, LOG_VARIANCE_RANGE)

# Weight (a, b), and (b,): of the last layer the bias, of the others what they are rectified at.
Layer = tuple[Array, Array]


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
        self._encoder = layers(network, "encoder")
        self._decoder = layers(network, "decoder")
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

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), a block at most: (n,) nats.

        Every score is a float32 number.
        """
        nats = self._nats(x).astype(np.float64)
        nats += self._constant
        return representable(nats)

    def one(self, x: Array) -> float:
        """Return the score of one scaled vector x (d,), where `takes_one`: the very same sums."""
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
        """Return the contribution of each feature to the score, (n, d), and its expected value."""
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


def layers(network: Network, part: str) -> list[Layer]:
    """Return the layers of encoder or decoder with each bias but the last carried into the next.

    max(h + b, 0) W + c = max(h, -b) W + (b W + c): a layer is rectified where its bias ends.
    """
    tensors, found = network.tensors, list[Layer]()
    last = len(network.shape.hidden)
    carried = np.zeros(1)
    for i in range(last + 1):
        weight = tensors[f"{part}.{i}.weight"]
        bias = tensors[f"{part}.{i}.bias"][0].astype(np.float64)
        carried = bias + (carried @ weight.astype(np.float64) if i else 0.0)
        found.append((weight, (carried if i == last else -carried).astype(np.float32)))
    return found


def log_variances(encoded: Array, latent: int) -> Array:
    """Return the clipped log variances of an encoder's answer (..., 2 k), (..., k)."""
    clipped = np.maximum(encoded[..., latent:], _LEAST)
    return np.minimum(clipped, _MOST, out=clipped)


def forward(perceptron: list[Layer], x: Array) -> Array:
    """Return what a perceptron makes of x (n, a), or of one x (a,)."""
    for weight, floor in perceptron[:-1]:
        x = x.dot(weight)
        np.maximum(x, floor, out=x)
    weight, bias = perceptron[-1]
    x = x.dot(weight)
    x += bias
    return x
