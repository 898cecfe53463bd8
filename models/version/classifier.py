"""The solver head: it finds the class of a vector from its code.

Shin et al., Continual learning with deep generative replay, 2017: the scholar of task i is a
generator and a solver S_i. The solver learns its predecessor's answers on vectors that the previous
generator draws (`classifier_training`). Here the VAE is the generator, and S is a small classifier
on its code: softmax(V relu(U m(x) + a) + b).

iCaRL (Rebuffi et al., 2017) decides by the nearest mean of exemplars instead: argmin_c ||phi(x) -
mu_c||. Here phi is the code m(x) scaled to length 1, and mu_c the mean of phi over the exemplars of
class c.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array

ClassLabels = NDArray[np.int64]
Memory = Mapping[str, NDArray[Any]]

# the labels of the classes, and those of the kept vectors
LABELS, EXEMPLARS = "solver.labels", "exemplars.labels"
_ARRAYS = ("solver.U", "solver.a", "solver.V", "solver.b")


def classes(memory: Memory) -> ClassLabels:
    """Return the labels of the classes that the solver knows, (C,); empty without a solver."""
    return np.asarray(memory.get(LABELS, ()), np.int64)


def solver_arrays(memory: Memory) -> list[Array]:
    """Return U (k, h), a (1, h), V (h, C) and b (1, C)."""
    return [np.asarray(memory[name], np.float32) for name in _ARRAYS]


def to_memory(labels: ClassLabels, trained: list[Array]) -> dict[str, NDArray[Any]]:
    """Return a solver in the form that a version's memory stores."""
    return {LABELS: labels, **dict(zip(_ARRAYS, trained, strict=True))}


def class_probabilities(memory: Memory, codes: Array) -> Array:
    """Return the probability of each class for codes (n, k), (n, C)."""
    U, a, V, b = solver_arrays(memory)
    logits = np.maximum(codes @ U + a, 0.0) @ V + b
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def nearest_mean(codes: Array, exemplars: Array, labels: ClassLabels) -> ClassLabels:
    """Return the class of each code (n, k) whose exemplars' (m, k) mean code is nearest, (n,)."""
    unit_codes, unit_exemplars = _unit(codes), _unit(exemplars)
    names = np.unique(labels)
    means = _unit(np.stack([unit_exemplars[labels == name].mean(axis=0) for name in names]))
    # for vectors of length 1 the largest product means the smallest distance
    return names[(unit_codes @ means.T).argmax(axis=1)]


def _unit(codes: Array) -> Array:
    return codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)
