"""Grows a network for a new regime, and removes the units that it does not need.

This is structure-incremental learning. Before a new experience, hidden layers get new units, with
random weights near 0 so that the network's output hardly changes. Training then minimises
adaptation plus preservation,

    L = E_new[loss] + E_old[loss] + lambda E_old[D]

with D the divergence from the previous version's answers (`distillation`). It uses dropout, so that
idle units take over a part of the work. At the end, units that stayed idle are removed, so that the
network after many updates is no larger than its regimes need.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.network import Network

SHARE = 8  # a layer gets one new unit for every eight that it has
NEAR_ZERO = 1e-3  # deviation of a new unit's outgoing weights: at first it has almost no effect
LEAST = 8  # the least number of units in a layer


def grow(network: Network, seed: int) -> Network:
    """Return the network with each hidden layer wider by 1 / `SHARE`, and nearly equal output."""
    rng = np.random.default_rng([seed, 7])
    tensors, hidden = dict(network.tensors), list(network.shape.hidden)
    for part in ("encoder", "decoder"):
        widths = hidden if part == "encoder" else hidden[::-1]
        for i, width in enumerate(widths):
            more = -(-width // SHARE)
            weight, bias, after = _layer_and_next(tensors, part, i)
            tensors[f"{part}.{i}.weight"] = np.hstack([weight, _he_weights(rng, len(weight), more)])
            tensors[f"{part}.{i}.bias"] = np.hstack([bias, np.zeros((1, more), np.float32)])
            outward = rng.standard_normal((more, after.shape[1]), dtype=np.float32)
            tensors[f"{part}.{i + 1}.weight"] = np.vstack([after, NEAR_ZERO * outward])
    wider = tuple(width + -(-width // SHARE) for width in hidden)
    return Network(replace(network.shape, hidden=wider), tensors)


def compact(network: Network, x: Array) -> Network:
    """Return the network without units that are idle on x (n, d); on x its output is the same.

    A hidden layer of the encoder and its mirror in the decoder have the same width. Both lose as
    many units as are idle in the layer with fewer idle units.
    """
    tensors, hidden = dict(network.tensors), list(network.shape.hidden)
    codes = network.encode(x)[0]
    activity = {"encoder": _activity(network, "encoder", x),
            "decoder": _activity(network, "decoder", codes)}  # fmt: skip
    for i, width in enumerate(hidden):
        places = {"encoder": i, "decoder": len(hidden) - 1 - i}
        busy = max(int((activity[part][place] > 0).sum()) for part, place in places.items())
        hidden[i] = max(busy, min(width, LEAST))
        for part, place in places.items():
            order = np.argsort(-activity[part][place], kind="stable")[: hidden[i]]
            kept = np.sort(order)
            weight, bias, after = _layer_and_next(tensors, part, place)
            tensors[f"{part}.{place}.weight"] = np.ascontiguousarray(weight[:, kept])
            tensors[f"{part}.{place}.bias"] = np.ascontiguousarray(bias[:, kept])
            tensors[f"{part}.{place + 1}.weight"] = np.ascontiguousarray(after[kept])
    return Network(replace(network.shape, hidden=tuple(hidden)), tensors)


def _activity(network: Network, part: str, x: Array) -> list[NDArray[np.float32]]:
    """Return the mean activation of each hidden unit, layer by layer."""
    means = []
    for i in range(len(network.shape.hidden)):
        weight, bias, _ = _layer_and_next(network.tensors, part, i)
        x = np.maximum(x @ weight + bias, 0.0)
        means.append(x.mean(axis=0))
    return means


def _layer_and_next(tensors: dict[str, Array], part: str, i: int) -> tuple[Array, Array, Array]:
    """Return weight and bias of layer i of encoder or decoder, and the weight of the next layer."""
    names = (f"{part}.{i}.weight", f"{part}.{i}.bias", f"{part}.{i + 1}.weight")
    weight, bias, after = (tensors[name] for name in names)
    return weight, bias, after


def _he_weights(rng: np.random.Generator, inputs: int, outputs: int) -> Array:
    """Draw weights (inputs, outputs) for rectified units (He et al., 2015)."""
    drawn = rng.standard_normal((inputs, outputs), dtype=np.float32)
    return drawn * np.float32(np.sqrt(2.0 / inputs))
