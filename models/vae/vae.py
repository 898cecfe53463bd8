"""The variational autoencoder in torch, for training.

One module holds M networks of one architecture and trains them in lock-step: every parameter has a
leading dimension M. Network 0 becomes the version. Each of the others leaves out one fold of the
new vectors, so that the threshold can be calibrated on vectors that the scoring network has not
seen. On small networks a step costs overhead rather than arithmetic, so the folds are nearly free.

Kingma & Welling, Auto-Encoding Variational Bayes, 2014.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from models.arrays import LOG_2PI
from models.parts.network import LOG_VARIANCE_RANGE, OUTSIDE, Network, Shape


class Linear(nn.Module):
    """M affine maps side by side: (M, n, i) -> (M, n, o)."""

    def __init__(self, networks: int, inputs: int, outputs: int, rng: torch.Generator) -> None:
        super().__init__()
        # He et al. 2015, for rectified units.
        scale = math.sqrt(2.0 / inputs)
        weight = torch.randn(networks, inputs, outputs, generator=rng) * scale
        self.weight = nn.Parameter(weight)  # (M, i, o)
        self.bias = nn.Parameter(torch.zeros(networks, 1, outputs))  # (M, 1, o)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (M, n, i) to (M, n, o)."""
        return torch.baddbmm(self.bias, x, self.weight)


class Perceptron(nn.Module):
    """Affine maps, with rectified units and, while training, dropout between them."""

    def __init__(
        self, networks: int, widths: list[int], dropout: float, rng: torch.Generator
    ) -> None:
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(Linear(networks, i, o, rng) for i, o in pairs)
        self.dropout = dropout
        self._rng = rng
        with torch.no_grad():  # a small last layer: training starts with outputs near 0
            last = self.layers[-1]
            assert isinstance(last, Linear)
            last.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (M, n, widths[0]) to (M, n, widths[-1])."""
        for layer in self.layers[:-1]:
            x = self.drop(torch.relu(layer(x)))
        return self.layers[-1](x)

    def drop(self, x: Tensor) -> Tensor:
        """Return x; while training, drop a share of its units and scale up the others."""
        if not (self.training and self.dropout):
            return x
        # torch's own dropout would draw from the global generator.
        kept = 1.0 - self.dropout
        mask = torch.empty(x.shape).bernoulli_(kept, generator=self._rng).div_(kept)
        return x * mask.to(x.device)


class VAE(nn.Module):
    """M variational autoencoders over scaled vectors of d features.

    q(z|x) = N(mean(x), diag exp(log_variance(x))), p(z) = N(0, I) and, by likelihood,
    p(x|z) = N(decode(z), diag exp(noise)), with one noise per feature that is learned, or
    Bernoulli(sigmoid(decode(z))), which `network.bernoulli` extends to values outside of [0, 1].
    The slots of each category have the probabilities softmax(decode(z)).
    """

    def __init__(
        self, shape: Shape, networks: int = 1, dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        d, k, hidden = shape.dimension, shape.latent, list(shape.hidden)
        self.shape = shape
        self.encoder = Perceptron(networks, [d, *hidden, 2 * k], dropout, rng)
        self.decoder = Perceptron(networks, [k, *reversed(hidden), d], dropout, rng)
        self.noise = nn.Parameter(torch.zeros(networks, 1, d))  # (M, 1, d) log variances

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (M, n, k) of q(z|x) for x (M, n, d)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def negative_log_likelihood(self, x: Tensor, decoded: Tensor) -> Tensor:
        """Return -log p(x|z) in nats, (M, n), from x and decode(z), both (M, n, d)."""
        if self.shape.likelihood == "bernoulli":
            loss = nn.functional.binary_cross_entropy_with_logits
            outside = (x - x.clamp(self.shape.low, self.shape.high)) / OUTSIDE
            inside = loss(decoded, x.clamp(0.0, 1.0), reduction="none")
            return (inside + 0.5 * outside.square()).sum(-1)
        m = self.shape.numbers
        noise = self.noise[..., :m].clamp(min=self.shape.noise_floor)
        residual = x[..., :m] - decoded[..., :m]
        nats = 0.5 * (residual.square() * (-noise).exp() + noise + LOG_2PI).sum(-1)
        for slots in self.shape.slot_slices:
            log = torch.log_softmax(decoded[..., slots], -1)
            nats = nats - (x[..., slots] * log).sum(-1)
        return nats

    def forward(self, x: Tensor, noise: Tensor, beta: float = 1.0) -> Tensor:
        """Return the negative ELBO of each row, (M, n), for x (M, n, d), noise (M, n, k).

        `beta` scales the KL term; it is below 1 only while a first training warms up.
        """
        mean, log_variance = self.encode(x)
        z = mean + (0.5 * log_variance).exp() * noise  # (M, n, k)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)
        return self.negative_log_likelihood(x, self.decoder(z)) + beta * kl

    def load(self, network: Network) -> None:
        """Set each of the M networks to one trained network's weights."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(
                    torch.from_numpy(network.tensors[tensor_name(name)]).expand_as(parameter)
                )

    def network(self, index: int) -> Network:
        """Return the network `index` as plain arrays, for scoring."""
        tensors = {
            tensor_name(name): parameter.detach()[index].cpu().numpy().copy()
            for name, parameter in self.named_parameters()
        }
        return Network(self.shape, tensors)


def tensor_name(name: str) -> str:
    """Return the name of a parameter in a `Network`."""
    return name.replace(".layers.", ".")
