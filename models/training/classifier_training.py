"""Trains the solver head on the new vectors and on replayed vectors.

With r = w_new the share of new vectors, the solver S_i of Shin et al., 2017, minimises

    r E_{(x, y) ~ D_i} [CE(S_i(x), y)] + (1 - r) E_{x' ~ G_{i-1}} [CE(S_i(x'), S_{i-1}(x'))]

The previous generator draws the old vectors, and the previous solver labels them. The other
strategies replace the second term by what they keep: `icarl` by exemplars with their own labels,
`lwf` by the previous solver's answers on the new vectors, `finetune` by nothing.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.arrays import Array
from models.parts.carried_calibration import GENERATED
from models.parts.network import Network
from models.strategies.past import Past
from models.vae.adam import Adam
from models.version.classifier import (
    EXEMPLARS,
    ClassLabels,
    class_probabilities,
    classes,
    solver_arrays,
    to_memory,
)
from models.version.version import Version

HIDDEN = 128
STEPS = 1_000
BATCH = 128  # new vectors in a batch, with as many old ones
LEARNING_RATE = 3e-3


def with_solver(
    version: Version, previous: Version | None, past: Past, x: Array, labels: ClassLabels | None
) -> Version:
    """Return `version` with a solver if `labels` were given or its predecessor has a solver.

    x (n, d) are the new vectors, scaled, of the classes `labels` (n,). Without labels the old
    classes are learned again, because their codes have moved.
    """
    if labels is None and (previous is None or not len(classes(previous.memory))):
        return version
    if labels is None:
        x, labels = x[:0], classes({})
    memory = {**version.memory, **_solver(previous, past, version, x, labels)}
    if len(version.kept) and len(x):
        memory |= _kept_labels(previous, version, x, labels)
    return replace(version, memory=memory)


def _solver(
    previous: Version | None, past: Past, version: Version, x: Array, labels: ClassLabels
) -> dict[str, NDArray[Any]]:
    """Train the solver on new vectors x (n, d) with `labels` (n,) and on old ones."""
    known = classes(previous.memory) if previous else classes({})
    names = np.concatenate([known, np.setdiff1d(labels, known)])
    rng = np.random.default_rng([version.lineage.seed, 10])
    rows, targets = [x], [_one_hot(labels, names)]
    if previous is not None and len(known):
        old, answers = _old_vectors(previous, past, x, rng)
        rows.append(old)
        targets.append(np.pad(answers, ((0, 0), (0, len(names) - len(known)))))
    shares = [version.lineage.w_new, version.lineage.w_prev]
    parts = [
        (torch.from_numpy(_codes(version.network, row)), torch.from_numpy(target), share)
        for row, target, share in zip(rows, targets, shares, strict=False)
        if len(row)
    ]
    head = _extended_head(previous, len(names), version.network.shape.latent, rng)
    frozen = len(known) if past.frozen else 0
    return to_memory(names, _train_head(head, parts, frozen, rng))


def _old_vectors(
    previous: Version, past: Past, x: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return vectors (m, d) in place of the old ones, and their class probabilities (m, C)."""
    if past.generator is not None:
        rows = past.generator.draw(GENERATED, rng)
    elif len(previous.kept) and EXEMPLARS in previous.memory:
        labels = np.asarray(previous.memory[EXEMPLARS], np.int64)
        return previous.kept, _one_hot(labels, classes(previous.memory))
    else:
        rows = x if past.answers else x[:0]
    return rows, class_probabilities(previous.memory, _codes(previous.network, rows))


def _codes(network: Network, x: Array) -> Array:
    """Return the mean code of each row of x (n, d), (n, k)."""
    return np.ascontiguousarray(network.encode(x)[0])


def _one_hot(labels: ClassLabels, names: ClassLabels) -> Array:
    return (labels[:, None] == names).astype(np.float32)


def _extended_head(
    previous: Version | None, C: int, k: int, rng: np.random.Generator
) -> list[Array]:
    """Return the previous solver's arrays extended to C classes; new weights are near 0."""
    if previous is None or not len(classes(previous.memory)):
        U = rng.standard_normal((k, HIDDEN), dtype=np.float32) * np.float32(np.sqrt(2.0 / k))
        return [U, np.zeros((1, HIDDEN), np.float32), *_new_outputs(rng, C)]
    U, a, V, b = solver_arrays(previous.memory)
    more_V, more_b = _new_outputs(rng, C - V.shape[1])
    return [U, a, np.hstack([V, more_V]), np.hstack([b, more_b])]


def _new_outputs(rng: np.random.Generator, C: int) -> list[Array]:
    """Return the weights (h, C) and biases (1, C) of new outputs."""
    return [
        np.float32(0.01) * rng.standard_normal((HIDDEN, C), dtype=np.float32),
        np.zeros((1, C), np.float32),
    ]


def _train_head(
    head: list[Array],
    parts: list[tuple[Tensor, Tensor, float]],
    frozen: int,
    rng: np.random.Generator,
) -> list[Array]:
    """Return U, a, V and b, trained to minimise the weighted cross-entropies of the parts.

    A part is codes (n, k), class probabilities (n, C) and a weight. If `frozen` outputs are given,
    only the outputs after them are trained.
    """
    U, a, V, b = (torch.from_numpy(part.copy()).requires_grad_() for part in head)
    learning = [V, b] if frozen else [U, a, V, b]
    optimiser = Adam(learning)
    total = sum(share for _, _, share in parts)
    for _ in range(STEPS if parts else 0):
        loss = torch.zeros(())
        for codes, targets, share in parts:
            rows = torch.from_numpy(rng.integers(len(codes), size=BATCH))
            logits = torch.relu(codes[rows] @ U + a) @ V + b
            cross_entropy = torch.nn.functional.cross_entropy(logits, targets[rows])
            loss = loss + share / total * cross_entropy
        for part in learning:
            part.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if frozen:
            for outputs in (V, b):
                assert outputs.grad is not None
                outputs.grad[:, :frozen] = 0.0
        optimiser.step(LEARNING_RATE)
    return [part.detach().numpy() for part in (U, a, V, b)]


def _kept_labels(
    previous: Version | None, version: Version, x: Array, labels: ClassLabels
) -> dict[str, NDArray[Any]]:
    """Return the labels of the real vectors that `version` keeps, in the form of its memory."""
    # Kept vectors are copies of new ones, or of those kept before.
    label_of = dict(zip(map(bytes, x), labels.tolist(), strict=True))
    if previous is not None and EXEMPLARS in previous.memory:
        old = previous.memory[EXEMPLARS].tolist()
        label_of |= dict(zip(map(bytes, previous.kept), old, strict=True))
    return {EXEMPLARS: np.array([label_of[bytes(row)] for row in version.kept], np.int64)}
