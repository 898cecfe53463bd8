"""Chooses the likelihood if the config says `auto`."""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import Config
from models.parts.scaler import Scaler
from models.training.prepared import PreparedExperience

LOOKED_AT = 2_000  # the most vectors used to choose the likelihood
# The least correlation of a pixel with the one below (ALIKE) and the one beside (ALIKE_BESIDE),
# relative to that of other columns. All sets of pictures that were tried exceed both numbers.
ALIKE, ALIKE_BESIDE = 1.5, 0.5
LEAST_SIDE = 8  # pixels: on a smaller side, groups of metrics would look like pictures


def likelihood_and_scaler(given: PreparedExperience, config: Config) -> tuple[str, Scaler]:
    """Return likelihood and scaler of the previous version, or fit them to the first vectors."""
    previous, new = given.previous, given.new
    if previous:
        return previous.network.shape.likelihood, previous.scaler
    likelihood = likelihood_of(new, config)
    unit = likelihood == "bernoulli"
    return likelihood, Scaler.fit(new, config.categories(new.shape[1]), unit)


def likelihood_of(X: Array, config: Config) -> str:
    """Return the configured likelihood; for `auto`, Bernoulli if the vectors look like pictures.

    Intensities of pictures share one scale, in any unit. Many of them lie at one end of the scale,
    and enough pixels come near the other end. Neighbouring pixels are alike. Ratings and
    percentages have not all of these properties. A config with a `shape` says itself that the
    vectors are pictures. Then the intensities alone decide, and fewer pixels need to come near the
    other end.
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
    range_of = highest - low if darkest >= brightest else high - lowest  # of each column
    lit = range_of[range_of > 0.0]  # columns that always have the ground's value are left out
    reach = np.mean(lit >= 0.75 * (high - low)) if lit.size else 0.0
    # Few of the pixels of one digit, pooled to 7 x 7, come near the other end.
    like_picture = max(darkest, brightest) > 0.1 and reach > (0.1 if declared else 0.3)
    is_picture = like_picture and (declared or _neighbours_alike(X[:LOOKED_AT]))
    return "bernoulli" if is_picture else "gaussian"


def _neighbours_alike(X: Array) -> bool:
    """Return whether the columns of X (n, d) are as alike as the neighbouring pixels of a picture.

    The median correlation of neighbours is compared with the median absolute correlation of other
    columns. Metrics of a server are often like their neighbours beside, but rarely like those
    below. Columns that represent the values of one category exclude each other, so their
    correlation is negative. The width of the pictures is not known, so every divisor of d is tried.
    """
    z = X - X.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(z).mean(axis=0))
    lit = deviation > 0.0
    z[:, lit] /= deviation[lit]
    columns = np.random.default_rng(0).permutation(np.flatnonzero(lit))
    others = max(np.median(np.abs(_correlations(z, columns[:-1], columns[1:]))), 1e-9)

    def times(step: int) -> float:
        """Return the correlation of columns that lie `step` apart, divided by that of others."""
        near = np.flatnonzero(lit[:-step] & lit[step:])
        return float(np.median(_correlations(z, near, near + step)) / others)

    d, beside = X.shape[1], times(1)
    below = max((times(w) for w in range(LEAST_SIDE, d // LEAST_SIDE + 1) if d % w == 0), default=0)
    return below > ALIKE and beside > ALIKE_BESIDE


def _correlations(z: Array, a: NDArray[np.intp], b: NDArray[np.intp]) -> Float64:
    """Return the correlations of the columns a (m,) of z (n, d) with the columns b; 0 for none."""
    return (z[:, a] * z[:, b]).mean(axis=0) if len(a) else np.zeros(1)
