"""A data density prepared for fast evaluation: its constants are folded into a few arrays.

`DataDensity` defines the numbers. This module computes them fast, because it runs for every scored
vector. A single vector has a path of its own: for it, numpy's overhead for matrices would cost more
than the arithmetic.
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
        n_rest, rest = d - k - len(space.tail), float(space.rest[0])
        constant = math.log(2.0) + k * math.log(float(space.scale[0]))
        constant += 0.5 * float((np.log(space.tail_variances) + LOG_2PI).sum())
        constant += 0.5 * n_rest * (math.log(rest) + LOG_2PI)
        self._constant, self._n_rest, self._rest = constant, n_rest, rest
        self._scale_squared = float(space.scale[0]) ** 2
        self._mean = space.mean.astype(np.float32)  # (d,)
        # For one vector there are two more places after the codes.
        self._directions_of_one = np.zeros((d, k + 2), np.float32)
        self._directions = self._directions_of_one[:, :k]
        self._directions[:] = space.directions.T
        self._tail = np.ascontiguousarray(space.tail.T)  # (d, t)
        self._half_precision = 0.5 / space.tail_variances  # (t,)
        self.gaussians = Density(mixture)
        # (c, 1, c.c) times this matrix (k + 2, m) is minus the squared distances from the centres.
        # The kernels' log densities are linear in those distances, so one product serves all.
        self._to_closeness = np.empty((k + 2, len(variances)))
        self._to_closeness[:k] = 2.0 * centres.T
        self._to_closeness[k] = -np.vecdot(centres, centres)
        self._to_closeness[k + 1] = -1.0
        self._slope = 0.5 / variances  # (m,)
        self._intercept = kernels.shares - 0.5 * k * (np.log(variances) + LOG_2PI)  # (m,)

    def __call__(self, z: Array) -> tuple[Float64, Float64]:
        """Return the log density at each row of z (n, d), and its distance from the kernels.

        The log density (n,) is in nats. The distance (n,) is from the nearest centre, in units of
        z. A distance whose square is below RIDGE is 0: otherwise rounding would rank equal rows.
        """
        centred = z - self._mean
        codes = np.dot(centred, self._directions)
        closeness = self._closeness(codes)
        squares = closeness.max(axis=1) * -self._scale_squared
        log: Float64 = self.gaussians.joint(codes).max(axis=1)
        np.maximum(log, self._of_kernels(closeness).max(axis=1), out=log)
        log -= self._constant
        if codes.shape[1] < centred.shape[1]:
            length = np.vecdot(centred, centred)
            outside = length - np.vecdot(codes, codes) * self._scale_squared
            squares += np.where(outside < RIDGE * length, 0.0, outside)
        if len(self._half_precision):
            log -= self._outside(centred, codes)
        return log, np.sqrt(np.where(squares < RIDGE, 0.0, squares))

    def of_one(self, z: Array) -> tuple[float, float]:
        """Return the same as a call for one vector z (d,), with plain floats after the products."""
        centred = z - self._mean
        codes = centred.dot(self._directions_of_one)  # (c, 1, 0)
        codes[-2] = 1.0
        powers = codes.astype(np.float64)  # (c, 1, c.c)
        powers[-1] = code_length = float(powers.dot(powers)) - 1.0
        closeness = powers.dot(self._to_closeness)
        squares = -self._scale_squared * closeness.item(closeness.argmax())
        kernels = self._of_kernels(closeness)
        gaussian = self.gaussians.largest_joint(codes[:-1])
        log = max(gaussian, kernels.item(kernels.argmax())) - self._constant
        if len(codes) - 2 < len(centred):
            length = float(centred.dot(centred))
            outside = length - code_length * self._scale_squared
            squares += 0.0 if outside < RIDGE * length else outside
        if len(self._half_precision):
            log -= float(self._outside(centred, codes[:-2]))
        return log, 0.0 if squares < RIDGE else math.sqrt(squares)

    def distance_in_plane(self, z: Array) -> Float64:
        """Return the distance of z (n, d) from the nearest centre in the plane of the codes, (n,).

        It is in units of z. How far z lies outside the plane does not count.
        """
        closeness = self._closeness(np.dot(z - self._mean, self._directions))
        squares = closeness.max(axis=1) * -self._scale_squared
        return np.sqrt(np.where(squares < RIDGE, 0.0, squares))

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
        return np.dot(powers, self._to_closeness)

    def _of_kernels(self, closeness: Float64) -> Float64:
        """Turn closeness (..., m) into log densities under each kernel, in place."""
        closeness *= self._slope
        closeness += self._intercept
        return closeness

    def _outside(self, centred: Array, codes: Array) -> Float64:
        """Return by how much the directions outside of the codes lower the log density.

        It is (n,) in nats for `centred` (n, d) and codes (n, k), and () for one vector.
        """
        tail = np.dot(centred, self._tail).astype(np.float64)
        squares = tail * tail
        nats: Float64 = np.dot(squares, self._half_precision)
        if self._n_rest:
            inside = np.vecdot(codes, codes) * self._scale_squared + squares.sum(axis=-1)
            nats += 0.5 * np.maximum(np.vecdot(centred, centred) - inside, 0.0) / self._rest
        return nats
