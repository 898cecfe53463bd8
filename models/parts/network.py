"""The trained network as plain arrays, with the forward pass in numpy alone, for serving."""

import itertools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.categories import slot_slices

# Log variances are clipped to this range. Beyond its ends they mean only "certain" or "unknown",
# and exp() would overflow.
LOG_VARIANCE_RANGE = (-12.0, 6.0)
# A Bernoulli likelihood cannot produce a value outside of [low, high]. Such a value costs half the
# square of its distance from the range, in this unit. A brightness that varies by a tenth costs
# little, and no value outside costs less than a value inside.
OUTSIDE = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """The architecture of a network: everything except its weights."""

    dimension: int
    latent: int
    hidden: tuple[int, ...]
    likelihood: str  # gaussian, bernoulli, or identity if there is no network
    noise_floor: float = -12.0  # the least log variance of a feature's noise, in scaled units
    # The range of the learned values, scaled, for a Bernoulli likelihood. Values below 0 or above 1
    # came with a later experience, and cost the same as 0 or 1.
    low: float = 0.0
    high: float = 1.0
    # The number of slots of each category. They are the last of the d numbers, with one softmax per
    # category.
    categories: tuple[int, ...] = ()

    @property
    def numbers(self) -> int:
        """How many of the d numbers are not slots; these come first."""
        return self.dimension - sum(self.categories)

    @property
    def slot_slices(self) -> list[slice]:
        """The slice of the d numbers that holds the slots of each category."""
        return slot_slices(self.dimension, self.categories)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every array that such a network has."""
        if self.likelihood == "identity":
            return {}
        widths = {
            "encoder": [self.dimension, *self.hidden, 2 * self.latent],
            "decoder": [self.latent, *reversed(self.hidden), self.dimension],
        }
        named: dict[str, tuple[int, ...]] = {"noise": (1, self.dimension)}
        for part, sizes in widths.items():
            for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
                named[f"{part}.{i}.weight"] = (inputs, outputs)
                named[f"{part}.{i}.bias"] = (1, outputs)
        return named

    def to_dict(self) -> dict[str, Any]:
        """Return the shape as JSON-able values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        if not self.categories:
            # without categories the form is that of releases that had none
            del values["categories"]
        return values


def posterior_codes(mean: Array, log_variance: Array, rng: np.random.Generator) -> Array:
    """Draw z ~ N(mean, diag exp(log_variance)) for each row, (n, k)."""
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    return mean + np.exp(np.float32(0.5) * log_variance) * noise


@dataclass(frozen=True, slots=True)
class Network:
    """One trained VAE. x is scaled, (n, d) float32; z is latent, (n, k) float32."""

    shape: Shape
    tensors: dict[str, Array]

    def _layer(self, part: str, i: int, x: Array) -> Array:
        x = x @ self.tensors[f"{part}.{i}.weight"]
        x += self.tensors[f"{part}.{i}.bias"]
        return x

    def _perceptron(self, part: str, x: Array) -> Array:
        return self._layer(part, len(self.shape.hidden), self.hidden(x, part))

    def hidden(self, x: Array, part: str = "encoder") -> Array:
        """Return the last hidden layer of the encoder or the decoder, (n, h)."""
        for i in range(len(self.shape.hidden)):
            x = self._layer(part, i, x)
            x = np.maximum(x, 0.0, out=x)
        return x

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Return mean and log variance of q(z|x), (n, k) each."""
        encoded = self._perceptron("encoder", x)
        k = self.shape.latent
        return encoded[:, :k], np.clip(encoded[:, k:], *LOG_VARIANCE_RANGE)

    def decode(self, z: Array) -> Array:
        """Return the mean of p(x|z), (n, d); for a category, the probability of each slot."""
        decoded = self._perceptron("decoder", z)
        if self.shape.likelihood == "bernoulli":
            return _sigmoid(decoded)
        for slots in self.shape.slot_slices:
            decoded[:, slots] = np.exp(log_softmax(decoded[:, slots]))
        return decoded

    def noise_deviation(self) -> Array:
        """Return each feature's deviation under p(x|z), (1, d), for a Gaussian likelihood."""
        floored = np.maximum(self.tensors["noise"], np.float32(self.shape.noise_floor))
        return np.exp(np.float32(0.5) * floored)

    def sample(self, z: Array, rng: np.random.Generator) -> Array:
        """Draw x (n, d) from p(x|z)."""
        mean = self.decode(z)
        if self.shape.likelihood == "bernoulli":
            return (rng.random(mean.shape, dtype=np.float32) < mean).astype(np.float32)
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        x = mean + self.noise_deviation() * noise
        for slots in self.shape.slot_slices:
            x[:, slots] = _draw_slots(mean[:, slots], rng)
        return x

    def losses(self, x: Array) -> tuple[Float64, Float64, Array]:
        """Return the parts of the score of x (n, d).

        They are the negative log-likelihood of each feature at the posterior's mean, (n, d) in
        nats; the divergence of the posterior from the prior, (n,) in nats; and the decoded mean,
        (n, d).
        """
        mean, log_variance = self.encode(x)
        decoded = self._perceptron("decoder", mean)
        if self.shape.likelihood == "bernoulli":
            features = bernoulli(x, decoded.astype(np.float64), self.shape)
            decoded = _sigmoid(decoded)
        else:
            noise = np.maximum(self.tensors["noise"], self.shape.noise_floor).astype(np.float64)
            residual = x.astype(np.float64) - decoded
            features = 0.5 * (residual * residual * np.exp(-noise) + noise + LOG_2PI)
            for slots in self.shape.slot_slices:
                log = log_softmax(decoded[:, slots])
                features[:, slots] = -x[:, slots].astype(np.float64) * log
                decoded[:, slots] = np.exp(log)
        wide_mean, wide = mean.astype(np.float64), log_variance.astype(np.float64)
        divergence = 0.5 * (wide_mean * wide_mean + np.exp(wide) - 1.0 - wide).sum(axis=1)
        return features, divergence, decoded


def log_softmax(logits: Array) -> Array:
    """Return the log probability of each slot of a category, (n, s), from the decoder's logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _draw_slots(probabilities: Array, rng: np.random.Generator) -> Array:
    """Draw one slot per row of probabilities (n, s); return (n, s), 1 for it and 0 for others."""
    below = np.cumsum(probabilities, axis=1, dtype=np.float64)
    chosen = (below < rng.random((len(below), 1)) * below[:, -1:]).sum(axis=1)
    drawn = np.zeros_like(probabilities)
    drawn[np.arange(len(drawn)), np.minimum(chosen, drawn.shape[1] - 1)] = 1.0
    return drawn


def bernoulli(x: Array, logits: Float64, shape: Shape) -> Float64:
    """Return -log p of each value of x (n, d), in nats, from the decoder's logits (n, d).

    A value outside of [0, 1] costs the same as the nearer end. Beyond the learned range the cost
    grows with the distance.
    """
    nats: Float64 = np.logaddexp(0.0, logits) - np.clip(x, 0.0, 1.0) * logits
    if (outside := x - np.clip(x, shape.low, shape.high)).any():
        nats += 0.5 * np.square(outside / OUTSIDE, dtype=np.float64)
    return nats


class Identity(Network):
    """A stand-in for a network whose codes are the scaled vectors themselves; it has no weights."""

    __slots__ = ()

    @classmethod
    def of(cls, d: int, categories: tuple[int, ...] = ()) -> Self:
        """Return an identity for d numbers, the last of which are the slots of categories."""
        return cls(Shape(d, d, (), "identity", categories=categories), {})

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Return x itself as the mean, and a log variance that means certainty, (n, d) each."""
        return x, np.full_like(x, LOG_VARIANCE_RANGE[0])

    def decode(self, z: Array) -> Array:
        """Return z (n, d) itself."""
        return z

    def sample(self, z: Array, rng: np.random.Generator) -> Array:
        """Return z (n, d) itself."""
        del rng
        return z


def _sigmoid(x: Array) -> Array:
    half = np.float32(0.5)
    return half * (np.float32(1.0) + np.tanh(half * x))
