"""Chooses the likelihood if the config says `auto`."""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import Config
from models.parts.scaler import Scaler
from models.training.prepared import PreparedExperience

LOOKED_AT = 2_000  # the most vectors used to choose the likelihood
# How many times as alike as other columns neighbours must be: the pixel below (ALIKE), and the
# pixel beside (ALIKE_BESIDE). All image sets that were tried exceed both numbers.
ALIKE, ALIKE_BESIDE = 1.5, 0.5
LEAST_SIDE = 8  # pixels: with fewer columns, groups of metrics would look like pictures


def likelihood_and_scaler(given: PreparedExperience, config: Config) -> tuple[str, Scaler]:
    """Return likelihood and scaler of the previous version, or fit them to the first vectors."""
    previous, new = given.previous, given.new
    if previous:
        return previous.network.shape.likelihood, previous.scaler
    likelihood = likelihood_of(new, config)
    unit = likelihood == "bernoulli"
    return likelihood, Scaler.fit(new, config.categories(new.shape[1]), unit)


def likelihood_of(X: Array, config: Config) -> str:
    """Return the configured likelihood; for `auto`, Bernoulli if the vectors look like images.

    Intensities of images share one scale, in any unit. Many of them lie at one end of the scale,
    and enough pixels come near the other end. Neighbouring pixels are alike. Ratings and
    percentages have not all of these properties. A config with a `shape` says itself that the
    vectors are pictures; then the intensities alone decide, and fewer pixels need to come near.
    """
    choice = config.network_choices.likelihood
    if choice != "auto":
        return choice
    declared = config.shape is not None
    if config.words or not (declared or X.shape[1] >= LEAST_SIDE**2):
        return "gaussian"
    low, high = float(X.min()), float(X.max())
    lowest, highest = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    darkest, brightest = np.mean(low >= X), np.mean(high <= X)
    # Drawings are bright on a dark ground, or dark on a bright one.
    away = highest - low if darkest >= brightest else high - lowest
    lit = away[away > 0.0]  # columns that always have the ground's value are left out
    reach = np.mean(lit >= 0.75 * (high - low)) if lit.size else 0.0
    # Few of the pixels of one digit, pooled to 7 x 7, come near the other end.
    image = max(darkest, brightest) > 0.1 and reach > (0.1 if declared else 0.3)
    return "bernoulli" if image and (declared or _neighbours_alike(X[:LOOKED_AT])) else "gaussian"


def _neighbours_alike(X: Array) -> bool:
    """Return whether neighbours of X (n, d), beside and below, are more alike than other columns.

    It compares the median correlation of neighbours with the median absolute correlation of others.
    Metrics of a server often have neighbours beside them that are alike, but rarely below. Columns
    that stand for the values of one category exclude each other, so their correlation is negative.
    The width of the pictures is not known, so every divisor of d is tried.
    """
    z = X - X.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(z).mean(axis=0))
    lit = deviation > 0.0
    z[:, lit] /= deviation[lit]
    columns = np.random.default_rng(0).permutation(np.flatnonzero(lit))
    others = max(np.median(np.abs(_correlations(z, columns[:-1], columns[1:]))), 1e-9)

    def times(step: int) -> float:
        """Return the likeness of columns that lie `step` apart, divided by that of others."""
        near = np.flatnonzero(lit[:-step] & lit[step:])
        return float(np.median(_correlations(z, near, near + step)) / others)

    d, beside = X.shape[1], times(1)
    below = max((times(w) for w in range(LEAST_SIDE, d // LEAST_SIDE + 1) if d % w == 0), default=0)
    return below > ALIKE and beside > ALIKE_BESIDE


def _correlations(z: Array, a: NDArray[np.intp], b: NDArray[np.intp]) -> Float64:
    """Return the correlations of the columns a (m,) of z (n, d) with the columns b; 0 for none."""
    return (z[:, a] * z[:, b]).mean(axis=0) if len(a) else np.zeros(1)
