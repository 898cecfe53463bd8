"""A data density prepared for fast evaluation: its constants are folded into a few arrays.

`DataDensity` defines the numbers; this module computes them fast, because it runs for every scored
vector. There is one path for a matrix and one for a single vector, for which numpy's overhead for
matrices would cost more than the arithmetic.
"""

import math
from typing import NamedTuple

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.mixture import Density, Mixture

RIDGE = 1e-6  # the least variance, in squared deviations of a feature


class Space(NamedTuple):
    """The space of the codes c = directions (k, d) (z - mean (d,)) of a view's vectors z.

    `directions` are principal axes divided by `scale` (1,). `tail` (t, d) are the next axes, with
    `tail_variances` (t,). All remaining directions share the variance `rest` (1,).
    """

    mean: Float64
    directions: Array
    scale: Float64
    tail: Array
    tail_variances: Float64
    rest: Float64

    @property
    def ridge(self) -> float:
        """The least variance of a code."""
        return RIDGE / float(self.scale[0]) ** 2

    def codes(self, z: Array) -> Array:
        """Return the codes (n, k) of z (n, d)."""
        return (z - self.mean).astype(np.float32) @ self.directions.T

    def wide_codes(self, z: Array | Float64) -> Float64:
        """Return the codes (n, k) of z (n, d) as float64."""
        return (z - self.mean) @ self.directions.T.astype(np.float64)

    def vectors(self, codes: Float64) -> Float64:
        """Return the vectors z (n, d) in the plane of the axes that have the `codes` (n, k)."""
        return self.mean + (codes * self.scale[0] ** 2) @ self.directions


class Kernels(NamedTuple):
    """Round kernels: centres (m, k), variances (m,) and log weights (m,)."""

    centres: Float64
    variances: Float64
    shares: Float64


class DensityPass:
    """Computes log density and distance from the nearest centre for vectors z; see `DataDensity`.

    Safe to call from several threads.
    """

    def __init__(self, space: Space, mixture: Mixture, kernels: Kernels) -> None:
        k, d = space.directions.shape
        variances, centres = kernels.variances, kernels.centres
        left, rest = d - k - len(space.tail), float(space.rest[0])
        constant = math.log(2.0) + k * math.log(float(space.scale[0]))
        constant += 0.5 * float((np.log(space.tail_variances) + LOG_2PI).sum())
        constant += 0.5 * left * (math.log(rest) + LOG_2PI)
        self._constant, self._left, self._rest = constant, left, rest
        self._area = float(space.scale[0]) ** 2
        self._origin = space.mean.astype(np.float32)
        # For one vector there are two more places after the codes.
        self._inward_of_one = np.zeros((d, k + 2), np.float32)
        self._inward = self._inward_of_one[:, :k]
        self._inward[:] = space.directions.T
        self._outward = np.ascontiguousarray(space.tail.T)  # (d, t)
        self._half_precision = 0.5 / space.tail_variances  # (t,)
        self.gaussians = Density(mixture)
        # (c, 1, c.c) times this matrix (k + 2, m) is minus the squared distances from the centres.
        # The kernels' log densities are linear in those distances, so one product serves all.
        self._closer = np.empty((k + 2, len(variances)))
        self._closer[:k] = 2.0 * centres.T
        self._closer[k] = -np.vecdot(centres, centres)
        self._closer[k + 1] = -1.0
        self._slope = 0.5 / variances
        self._start = kernels.shares - 0.5 * k * (np.log(variances) + LOG_2PI)

    def __call__(self, z: Array) -> tuple[Float64, Float64]:
        """Return the log density at each row of z (n, d), and its distance from the kernels.

        The log density (n,) is in nats. The distance (n,) is from the nearest centre, in units of
        z. It is 0 within the width of a kernel, where rounding would rank equal rows.
        """
        apart = z - self._origin
        codes = np.dot(apart, self._inward)
        closeness = self._closeness(codes)
        squares = closeness.max(axis=1) * -self._area
        log: Float64 = self.gaussians.joint(codes).max(axis=1)
        np.maximum(log, self._of_kernels(closeness).max(axis=1), out=log)
        log -= self._constant
        if codes.shape[1] < apart.shape[1]:
            length = np.vecdot(apart, apart)
            outside = length - np.vecdot(codes, codes) * self._area
            squares += np.where(outside < RIDGE * length, 0.0, outside)
        if len(self._half_precision):
            log -= self._beyond(apart, codes)
        return log, np.sqrt(np.where(squares < RIDGE, 0.0, squares))

    def of_one(self, z: Array) -> tuple[float, float]:
        """Return the same as a call for one vector z (d,), with plain floats after the products."""
        apart = z - self._origin
        codes = apart.dot(self._inward_of_one)  # (c, 1, 0)
        codes[-2] = 1.0
        powers = codes.astype(np.float64)  # (c, 1, c.c)
        powers[-1] = length = float(powers.dot(powers)) - 1.0
        closeness = powers.dot(self._closer)
        squares = -self._area * closeness.item(closeness.argmax())
        likelier = self._of_kernels(closeness)
        gaussian = self.gaussians.largest_joint(codes[:-1])
        log = max(gaussian, likelier.item(likelier.argmax())) - self._constant
        if len(codes) - 2 < len(apart):
            whole = float(apart.dot(apart))
            outside = whole - length * self._area
            squares += 0.0 if outside < RIDGE * whole else outside
        if len(self._half_precision):
            log -= float(self._beyond(apart, codes[:-2]))
        return log, 0.0 if squares < RIDGE else math.sqrt(squares)

    def under_kernels(self, codes: Array) -> Float64:
        """Return the log density of each of codes (n, k) under each kernel, (n, m)."""
        return self._of_kernels(self._closeness(codes))

    def _closeness(self, codes: Array) -> Float64:
        """Return minus the squared distances of codes (n, k) from the kernels' centres, (n, m)."""
        n, k = codes.shape
        powers = np.empty((n, k + 2))
        powers[:, :k] = codes
        powers[:, k] = 1.0
        powers[:, k + 1] = np.vecdot(powers[:, :k], powers[:, :k])
        return np.dot(powers, self._closer)

    def _of_kernels(self, closeness: Float64) -> Float64:
        """Turn closeness (..., m) into log densities under each kernel, in place."""
        closeness *= self._slope
        closeness += self._start
        return closeness

    def _beyond(self, apart: Array, codes: Array) -> Float64:
        """Return how much the directions beyond the mixture's lower the log density.

        It is (n,) in nats for apart (n, d) and codes (n, k), and () for one vector.
        """
        tail = np.dot(apart, self._outward).astype(np.float64)
        squares = tail * tail
        nats: Float64 = np.dot(squares, self._half_precision)
        if self._left:
            inside = np.vecdot(codes, codes) * self._area + squares.sum(axis=-1)
            nats += 0.5 * np.maximum(np.vecdot(apart, apart) - inside, 0.0) / self._rest
        return nats
