"""The scores a detector can be configured with: each a function of a network and scaled vectors."""

from collections.abc import Callable

from models.calibration import representable
from models.network import Array, Float64, Network


def elbo(network: Network, x: Array) -> Float64:
    """Return the negative evidence lower bound at the posterior's mean, (n,) nats.

    -log p(x | z = mean(x)) + KL(q(z|x) || N(0, I)): one forward pass, no sampling.
    """
    features, divergence, _ = network.losses(x)
    nats: Float64 = features.sum(axis=1) + divergence
    return nats


def reconstruction(network: Network, x: Array) -> Float64:
    """Return -log p(x | z = mean(x)) alone, (n,) nats."""
    nats: Float64 = network.losses(x)[0].sum(axis=1)
    return nats


_SCORES: dict[str, Callable[[Network, Array], Float64]] = {
    "elbo": elbo,
    "reconstruction": reconstruction,
}


def score(kind: str, network: Network, x: Array) -> Float64:
    """Return the score named `kind` of scaled vectors x (n, d): (n,) nats, float32-valued."""
    return representable(_SCORES[kind](network, x))
