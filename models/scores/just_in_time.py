"""A local linear model around each query as a score."""

import numpy as np

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.network import Network
from models.scores.generated_bank import Bank

LOCAL = 30  # neighbours that a local model is fitted to


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
