"""The residual of a local linear model around each vector as a score."""

import numpy as np

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.network import Network
from models.scores.generated_bank import Bank

LOCAL = 30  # a local model is fitted to this many neighbours


class JustInTime:
    """`jit`: the residual of x under a linear model of the generated vectors nearest to x.

    Cheng & Chiu, A new data-based methodology for nonlinear process modeling, 2004, fit models at
    query time. With c the mean of the 30 nearest vectors of the bank, and C (30, d) their
    differences from c divided by sqrt(30), r = x - c is fitted by ridge regression on the rows of
    C:

        min_w || r - C'w ||^2 + l ||w||^2  =  l r' (C'C + l I)^-1 r,   l = trace(C C') / 30

    This is the Mahalanobis distance under the local covariance, times the mean variance. It costs
    as much as `neighbours`, plus a system of 30 equations for each vector. The unit is scaled units
    squared.
    """

    def __init__(self, network: Network, codes: Array) -> None:
        self._bank = Bank(network.decode(codes))

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        residual, spread, solution = self._fit(x)
        explained = np.einsum("nid,nd,ni->n", spread, residual, solution, optimize=True)
        return representable(np.vecdot(residual, residual) - explained)

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's squared distance from the local model's value, and that value."""
        residual, spread, solution = self._fit(x)
        left = residual - np.einsum("ni,nid->nd", solution, spread)
        return np.square(left), (x - left).astype(np.float32)

    def _fit(self, x: Array) -> tuple[Float64, Float64, Float64]:
        """Return r (n, d), C (n, 30, d) and w (n, 30) as defined above."""
        near = self._bank[self._bank.neighbours(x, LOCAL)[0]].astype(np.float64)  # (n, 30, d)
        center = near.mean(axis=1)
        spread = (near - center[:, None]) / np.sqrt(LOCAL)
        residual = x - center
        gram = spread @ spread.transpose(0, 2, 1)  # (n, 30, 30)
        ridge = np.maximum(np.trace(gram, axis1=1, axis2=2) / LOCAL, 1e-9)
        gram += ridge[:, None, None] * np.eye(LOCAL)
        right = spread @ residual[..., None]
        return residual, spread, np.linalg.solve(gram, right)[..., 0]
