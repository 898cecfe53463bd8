"""Chooses the likelihood if the config says `auto`."""

import math

import numpy as np

from models.arrays import Array
from models.config import Config
from models.parts.scaler import Scaler
from models.training.prepared import PreparedExperience

LOOKED_AT = 2_000  # the most vectors used to choose the likelihood
# in all image sets tried, neighbours are at least this many times as alike as other columns
ALIKE = 1.5


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

    Intensities of images share one scale; many of them lie at its floor and many at its top, and
    neighbours are alike. Ratings and percentages do not look like that.
    """
    asked = config.network_choices.likelihood
    if asked != "auto":
        return asked
    if config.words:
        return "gaussian"
    low, high = float(X.min()), float(X.max())
    lit = X[:, X.max(axis=0) > low]  # columns that are not always dark
    between = ((lit > low) & (lit < high)).mean(axis=0)
    # One-hot columns reach the top too, but have no values in between.
    shaded = (lit.max(axis=0) >= 0.9 * high) & (between > 0.05) if lit.size else np.zeros(1)
    image = X.shape[1] >= 16 and low == 0.0 and np.mean(low >= X) > 0.1 and shaded.mean() > 0.3
    return "bernoulli" if image and _neighbours_alike(X[:LOOKED_AT]) else "gaussian"


def _neighbours_alike(X: Array) -> bool:
    """Return whether neighbouring columns of X (n, d) are more alike than other columns.

    It compares median absolute correlations. Among neighbouring pixels the median is at least three
    times as high; if the order of the columns has no meaning, it is the same. If the columns may
    form a square, the neighbours below count too, because two classes of pictures alone make many
    pixels alike.
    """
    z = X - X.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(z).mean(axis=0))
    lit = deviation > 0.0
    z[:, lit] /= deviation[lit]
    columns = np.random.default_rng(0).permutation(np.flatnonzero(lit))
    side = math.isqrt(X.shape[1])
    steps = (1, side) if side * side == X.shape[1] else (1,)
    near = [(a, a + step) for step in steps for a in np.flatnonzero(lit[:-step] & lit[step:])]
    alike, others = (
        np.median(np.abs((z[:, a] * z[:, b]).mean(axis=0))) if len(a) else 0.0
        for a, b in (np.array(near, int).reshape(-1, 2).T, (columns[:-1], columns[1:]))
    )
    return bool(alike > ALIKE * others)
