"""Learning curves: what more vectors of a regime would be worth, and how to spend a budget of them.

Tae & Whang, Slice Tuner: a selective data acquisition framework, 2021. There the model itself is
trained on subsets; here the subsets train its linear likeness, probabilistic PCA with as many
latents (Tipping & Bishop, 1999), which has a closed form and so costs milliseconds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import LOG_2PI, Array, Float64

FEWEST = 48  # vectors of a regime: fewer show no curve
MOST = 600  # vectors that a curve is drawn from
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the vectors that are not held out
REPEATS = (4, 2, 1, 1)  # fits at each, on other vectors: few vary more
HELD_OUT = 1 / 3
EXPONENTS = np.linspace(0.2, 1.0, 17)  # 1: as fast as estimates of parameters get better
LEAST_VARIANCE = 2.5e-3  # of a feature, scaled: a smaller one says more of rounding than of rows


class Curve(NamedTuple):
    """The loss after n vectors, in nats a vector: `floor + scale * n ** -exponent`."""

    floor: float
    scale: float
    exponent: float

    def gain(self, n: float, more: float) -> float:
        """Return by how much `more` vectors beyond n lower the loss."""
        return float(self.scale * (n**-self.exponent - (n + more) ** -self.exponent))


def measure(x: Array, latent: int, rng: np.random.Generator) -> Curve | None:
    """Return the learning curve of scaled vectors x (n, d) of one regime; None for too few."""
    if len(x) < FEWEST:
        return None
    chosen = x[rng.permutation(len(x))[:MOST]].astype(np.float64)
    held_out, kept = np.split(chosen, [int(len(chosen) * HELD_OUT)])
    sizes = [int(len(kept) * share) for share in SHARES]
    axes = max(1, min(latent, sizes[0] // 3, x.shape[1] - 1))
    losses = []
    for size, repeats in zip(sizes, REPEATS, strict=True):
        fits = [kept[rng.permutation(len(kept))[:size]] for _ in range(repeats)]
        losses.append(np.mean([_loss(fit, held_out, axes) for fit in fits]))
    return fit(np.array(sizes, float), np.array(losses))


def fit(sizes: Float64, losses: Float64) -> Curve:
    """Fit a curve to losses (m,) at sizes (m,), weighted by size: small fits vary more.

    >>> n = np.array([10.0, 20.0, 40.0, 80.0])
    >>> fit(n, 3.0 + 5.0 / n)
    Curve(floor=3.0, scale=5.0, exponent=1.0)
    """
    found = [Curve(float(losses[-1]), 0.0, 1.0)]
    errors = [np.inf]
    weights = np.sqrt(sizes)
    for exponent in EXPONENTS:
        design = np.stack([weights, weights * sizes**-exponent], axis=1)
        solved = np.linalg.lstsq(design, weights * losses, rcond=None)[0]
        if solved[1] > 0:
            floor, scale = (float(np.round(value, 9)) for value in solved)
            found.append(Curve(floor, scale, round(float(exponent), 3)))
            errors.append(float(np.square(design @ solved - weights * losses).sum()))
    return found[int(np.argmin(errors))]


def acquire(curves: Sequence[Curve], sizes: Sequence[float], budget: int) -> list[int]:
    """Return how many of `budget` more vectors each regime should get.

    The sum of the losses then falls most: the best split levels what the next vector of each
    regime that gets any would gain, `scale * exponent * n ** -(exponent + 1)`.

    >>> acquire([Curve(1.0, 8.0, 1.0), Curve(1.0, 8.0, 1.0)], [100, 300], 400)
    [300, 100]
    """
    slopes = np.array([curve.scale * curve.exponent for curve in curves])
    roots = np.array([1.0 / (curve.exponent + 1.0) for curve in curves])
    n = np.array(sizes, np.float64)
    if not slopes.any():
        return [0] * len(curves)
    low, high = -700.0, float(np.log(slopes.max() + 1.0)) + 1.0  # log of the levelled gain
    for _ in range(80):
        middle = 0.5 * (low + high)
        wanted = np.maximum((slopes * np.exp(-middle)) ** roots - n, 0.0)
        low, high = (middle, high) if wanted.sum() > budget else (low, middle)
    return [round(float(more)) for more in wanted]


def _loss(x: Float64, held_out: Float64, axes: int) -> float:
    """Return the mean negative log-likelihood of `held_out` under PCA fitted to x (n, d), nats."""
    n, d = x.shape
    mean = x.mean(axis=0)
    centred, away = x - mean, held_out - mean
    if n < d:
        values, rows = np.linalg.eigh(centred @ centred.T / n)
        values, rows = values[-axes:], rows[:, -axes:]
        vectors = centred.T @ rows / np.sqrt(np.maximum(values, 1e-12) * n)  # (d, axes)
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred / n)
        values, vectors = values[-axes:], vectors[:, -axes:]
    total = float(np.square(centred).sum()) / n
    noise = max((total - float(values.sum())) / max(d - axes, 1), LEAST_VARIANCE)
    values = np.maximum(values, noise)
    along = np.square(away @ vectors)  # (m, axes)
    beside = np.square(away).sum(axis=1) - along.sum(axis=1)
    logs = d * LOG_2PI + np.log(values).sum() + (d - axes) * np.log(noise)
    return 0.5 * float((logs + (along / values).sum(axis=1) + beside / noise).mean())
