"""Learning curves: how much further vectors of each regime would help, and how to divide a budget.

Tae & Whang, Slice Tuner: a selective data acquisition framework, 2021, train the model itself on
subsets. Here the subsets train a linear approximation of the model: probabilistic PCA with as many
latents (Tipping & Bishop, 1999). Its fit has a closed form and costs milliseconds.
"""

from collections.abc import Sequence

import numpy as np

from models.arrays import LOG_2PI, Array, Float64
from models.parts.lineage import LearningCurve

FEWEST = 48  # the fewest vectors of a regime that give a curve
MOST = 600  # the most vectors used for a curve
# sizes of the subsets, as shares of the vectors that are not held out
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
REPEATS = (4, 2, 1, 1)  # fits at each size, on different subsets: small ones vary more
HELD_OUT = 1 / 3
EXPONENTS = np.linspace(0.2, 1.0, 17)  # 1 is the rate at which parameter estimates improve
LEAST_VARIANCE = 2.5e-3  # the least variance of a scaled feature: a smaller one shows rounding


def learning_curve(x: Array, latent: int, rng: np.random.Generator) -> LearningCurve | None:
    """Return the learning curve of one regime's scaled vectors x (n, d); None for too few."""
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
    return fit_curve(np.array(sizes, float), np.array(losses))


def fit_curve(sizes: Float64, losses: Float64) -> LearningCurve:
    """Fit a curve to losses (m,) at sizes (m,), weighted by size because small fits vary more.

    >>> n = np.array([10.0, 20.0, 40.0, 80.0])
    >>> fit_curve(n, 3.0 + 5.0 / n)
    LearningCurve(exponent=1.0, floor=3.0, scale=5.0)
    """
    curves = [LearningCurve(exponent=1.0, floor=float(losses[-1]), scale=0.0)]
    errors = [np.inf]
    weights = np.sqrt(sizes)
    for exponent in EXPONENTS:
        design = np.stack([weights, weights * sizes**-exponent], axis=1)
        solved = np.linalg.lstsq(design, weights * losses, rcond=None)[0]
        if solved[1] > 0:
            floor, scale = (float(np.round(value, 9)) for value in solved)
            rounded = round(float(exponent), 3)
            curves.append(LearningCurve(exponent=rounded, floor=floor, scale=scale))
            errors.append(float(np.square(design @ solved - weights * losses).sum()))
    return curves[int(np.argmin(errors))]


def allocate(curves: Sequence[LearningCurve], sizes: Sequence[float], budget: int) -> list[int]:
    """Return how many of a `budget` of further vectors each regime should get.

    This division lowers the sum of the losses most: the gain of one more vector, `scale * exponent
    * n ** -(exponent + 1)`, is equal for all regimes that get any.

    >>> curve = LearningCurve(exponent=1.0, floor=1.0, scale=8.0)
    >>> allocate([curve, curve], [100, 300], 400)
    [300, 100]
    """
    slopes = np.array([curve.scale * curve.exponent for curve in curves])
    roots = np.array([1.0 / (curve.exponent + 1.0) for curve in curves])
    n = np.array(sizes, np.float64)
    if not slopes.any():
        return [0] * len(curves)
    low, high = -700.0, float(np.log(slopes.max() + 1.0)) + 1.0  # the log of the equal gain
    for _ in range(80):
        middle = 0.5 * (low + high)
        counts = np.maximum((slopes * np.exp(-middle)) ** roots - n, 0.0)
        low, high = (middle, high) if counts.sum() > budget else (low, middle)
    return [round(float(more)) for more in counts]


def _loss(x: Float64, held_out: Float64, axes: int) -> float:
    """Return the mean -log p of `held_out` under PCA fitted to x (n, d), in nats."""
    n, d = x.shape
    mean = x.mean(axis=0)
    centred, centred_held_out = x - mean, held_out - mean
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
    along = np.square(centred_held_out @ vectors)  # (m, axes)
    rest = np.square(centred_held_out).sum(axis=1) - along.sum(axis=1)
    logs = d * LOG_2PI + np.log(values).sum() + (d - axes) * np.log(noise)
    return 0.5 * float((logs + (along / values).sum(axis=1) + rest / noise).mean())
