"""A generalised Pareto tail fitted beyond the largest calibration scores."""

import math

import numpy as np

from models.arrays import Float64

HEAVY, HEAVIEST = 0.4, 2.0  # gamma by moments from which on a tail is fitted otherwise; at the most
FEWEST = 10  # positive excesses for that


def peaks_over_threshold(scores: Float64, q: float) -> float:
    """Return z_q, the score that a normal exceeds with probability q, by extreme-value theory.

    Siffer et al., 2017: of n ascending scores the N_t above t are peaks, whose excesses follow a
    generalized Pareto distribution with shape gamma and scale sigma, so

        z_q = t + (sigma / gamma) ((q n / N_t)^(-gamma) - 1)

    and t - sigma log(q n / N_t) in the limit gamma = 0. t is the score below the largest tenth,
    or below those rarer than q where q is larger.
    """
    n = len(scores)
    peaks = min(max(n // 10, 10, math.ceil(q * n)), n - 1)
    t, excesses = float(scores[n - peaks - 1]), scores[n - peaks :] - scores[n - peaks - 1]
    gamma, sigma = pareto(excesses, float(scores[-1]))
    ratio = math.log(q * n / peaks)
    return t - sigma * ratio if gamma < 1e-6 else t + sigma / gamma * math.expm1(-gamma * ratio)


def fit_tail(scores: Float64) -> tuple[float, float]:
    """Fit (gamma, sigma) to the largest tenth, for excesses over the largest score."""
    n = len(scores)
    k = min(max(n // 10, 10), n - 1)
    excesses = scores[n - k :] - scores[n - k - 1]
    gamma, scale = pareto(excesses, float(scores[-1]))
    # Peaks over the largest score: the excess over a higher level has scale sigma + gamma * step.
    return gamma, scale + gamma * float(excesses[-1])


def pareto(excesses: Float64, largest: float) -> tuple[float, float]:
    """Fit (gamma, sigma) to ascending excesses (k,) by probability-weighted moments.

    Those have no finite variance from gamma = .5 on. What comes near it is fitted by `heavy`.
    """
    k = len(excesses)
    # Even where all scores are equal a tail must fall; 1e-6 nats is below any difference.
    mean = max(float(excesses.mean()), 1e-6, 1e-6 * abs(largest))
    ranks = (np.arange(k, 0, -1) - 0.65) / k  # plotting positions, the largest last
    second = float((excesses * ranks).mean())
    gamma = 2.0 - mean / max(mean - 2.0 * second, 1e-3 * mean)
    positive = excesses[excesses > 0.0]
    if gamma > HEAVY and len(positive) >= FEWEST:
        return heavy(positive)
    # A bounded tail (gamma < 0) would call the next normal impossible; a mean needs gamma < 1.
    gamma = float(np.clip(gamma, 0.0, 0.5))
    return gamma, mean * (1.0 - gamma)


def heavy(excesses: Float64) -> tuple[float, float]:
    """Fit (gamma, sigma) to ascending positive excesses (k,), however heavy their tail is.

    Zhang & Stephens, A new and efficient estimation method for the generalized Pareto
    distribution, 2009: with b = -gamma / sigma the likelihood depends on b alone; b is its mean
    over a grid, weighted by likelihood.
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
