"""A generalised Pareto tail beyond the largest calibration scores."""

import math

import numpy as np

from models.arrays import Float64

# `fit_heavy_tail` fits tails whose gamma is above HEAVY; HEAVIEST is the largest gamma
HEAVY, HEAVIEST = 0.4, 2.0
FEWEST = 10  # the fewest positive excesses to which a tail is fitted


def peaks_over_threshold(scores: Float64, q: float) -> float:
    """Return z_q, the score that a normal exceeds with probability q, by extreme-value theory.

    Siffer et al., 2017: N_t of the n ascending scores lie above t. Their excesses over t follow a
    generalized Pareto distribution with shape gamma and scale sigma, so

        z_q = t + (sigma / gamma) ((q n / N_t)^(-gamma) - 1)

    and t - sigma log(q n / N_t) in the limit gamma = 0. t is the score just below the largest
    tenth, or below the largest share q if q is larger.
    """
    n = len(scores)
    peaks = min(max(n // 10, 10, math.ceil(q * n)), n - 1)
    t, excesses = float(scores[n - peaks - 1]), scores[n - peaks :] - scores[n - peaks - 1]
    gamma, sigma = fit_pareto(excesses, float(scores[-1]))
    ratio = math.log(q * n / peaks)
    return t - sigma * ratio if gamma < 1e-6 else t + sigma / gamma * math.expm1(-gamma * ratio)


def fit_tail(scores: Float64) -> tuple[float, float]:
    """Fit (gamma, sigma) to the largest tenth; they hold for excesses over the maximum."""
    n = len(scores)
    k = min(max(n // 10, 10), n - 1)
    excesses = scores[n - k :] - scores[n - k - 1]
    gamma, scale = fit_pareto(excesses, float(scores[-1]))
    # For excesses over a level that is higher by `step`, the scale is sigma + gamma * step.
    return gamma, scale + gamma * float(excesses[-1])


def fit_pareto(excesses: Float64, largest: float) -> tuple[float, float]:
    """Fit (gamma, sigma) to ascending excesses (k,) by probability-weighted moments.

    These moments have no finite variance if gamma >= 0.5. `fit_heavy_tail` fits tails with a gamma
    near 0.5 or above.
    """
    k = len(excesses)
    # A tail must fall even if all scores are equal; 1e-6 nats is below any real difference.
    mean = max(float(excesses.mean()), 1e-6, 1e-6 * abs(largest))
    ranks = (np.arange(k, 0, -1) - 0.65) / k  # plotting positions, ascending
    second = float((excesses * ranks).mean())
    gamma = 2.0 - mean / max(mean - 2.0 * second, 1e-3 * mean)
    positive = excesses[excesses > 0.0]
    if gamma > HEAVY and len(positive) >= FEWEST:
        return fit_heavy_tail(positive)
    # A bounded tail (gamma < 0) would make a slightly larger normal impossible; a finite mean needs
    # gamma < 1.
    gamma = float(np.clip(gamma, 0.0, 0.5))
    return gamma, mean * (1.0 - gamma)


def fit_heavy_tail(excesses: Float64) -> tuple[float, float]:
    """Fit (gamma, sigma) to ascending positive excesses (k,), however heavy their tail is.

    Zhang & Stephens, A new and efficient estimation method for the generalized Pareto distribution,
    2009: with b = -gamma / sigma the profile likelihood depends on b alone. The estimate of b is
    the mean over a grid, weighted by this likelihood.
    """
    k = len(excesses)
    points = 30 + math.isqrt(k)
    grid = 1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    grid = grid / (3.0 * excesses[int(k / 4 + 0.5) - 1]) + 1.0 / excesses[-1]
    gammas = np.log1p(-grid[:, None] * excesses).mean(axis=1)
    likelihood = k * (np.log(-grid / gammas) - gammas - 1.0)
    weights = np.exp(likelihood - likelihood.max())
    b = float(grid @ weights / weights.sum())
    gamma = float(np.log1p(-b * excesses).mean())
    bounded = min(max(gamma, 0.0), HEAVIEST)
    return bounded, -gamma / b if gamma > 0.0 else float(excesses.mean())
