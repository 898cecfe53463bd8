"""The modes of a density: which vectors belong together, by the valleys between them.

Chazal, Guibas, Oudot & Skraba, Persistence-based clustering in Riemannian manifolds (ToMATo), 2013.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from models.network import Array, Float64

PERSISTENCE = 2.5  # a peak this many times higher than the pass to a higher one is a mode
CODES = 100  # for each Gaussian of the density: fewer make valleys of chance
MOST = 20  # Gaussians
SMALLEST = 0.02  # share of the codes that a mode holds at the least
IDLE = 0.02  # variance of a latent over all codes below which it says nothing
_STEPS = 9  # points looked at between two Gaussians, both ends included


def modes(codes: Array, seed: int) -> NDArray[np.int64]:
    """Return which mode of their density each of the codes (n, k) belongs to, (n,) from 0.

    `codes` are posterior means: what the posterior's noise would blur stays apart. The density
    is a mixture of Gaussians, far too many of them on purpose; two whose densities no valley
    separates are one mode. A valley counts where the lower of the two peaks is at least
    `PERSISTENCE` times as high as the pass between them. A mode of too few codes joins another.
    """
    from sklearn.mixture import GaussianMixture

    z = codes[:, codes.var(axis=0) > IDLE].astype(np.float64)
    components = min(MOST, len(z) // CODES)
    if components < 2 or not z.shape[1]:
        return np.zeros(len(codes), np.int64)
    z /= z.std(axis=0)
    density = GaussianMixture(
        components, reg_covar=2e-2, max_iter=60, tol=1e-2, init_params="k-means++",
        random_state=seed % 2**32,
    ).fit(z)  # fmt: skip
    peaks, pairs, passes = _relief(density)
    of = _merged(peaks, pairs, passes)
    own = density.predict_proba(z)  # (n, components)
    large = (np.bincount(of, own.sum(axis=0), components) >= SMALLEST * len(z))[of]
    apart = np.square(density.means_[:, None] - density.means_[None, large]).sum(axis=2)
    of = np.where(large, of, of[large][apart.argmin(axis=1)])
    _, labels = np.unique(of[own.argmax(axis=1)], return_inverse=True)
    return labels.astype(np.int64)


def _relief(density: object) -> tuple[Float64, list[tuple[int, int]], Float64]:
    """Return log density at the components' means, all pairs, and the lowest between each."""
    means, log_density = density.means_, density.score_samples  # type: ignore[attr-defined]
    pairs = list(itertools.combinations(range(len(means)), 2))
    first, second = np.array(pairs).T
    along = np.linspace(0.0, 1.0, _STEPS)[1:-1, None, None]
    points = means[first] * (1.0 - along) + means[second] * along  # (steps, pairs, k)
    between = log_density(points.reshape(-1, means.shape[1])).reshape(len(points), -1)
    return log_density(means), pairs, between.min(axis=0)


def _merged(peaks: Float64, pairs: list[tuple[int, int]], passes: Float64) -> NDArray[np.int64]:
    """Return the mode of each component, by its highest: passes are crossed from the top down."""
    of = np.arange(len(peaks))
    for pair in np.argsort(-passes, kind="stable"):
        low, high = sorted((int(of[i]) for i in pairs[pair]), key=lambda mode: float(peaks[mode]))
        if low != high and peaks[low] - passes[pair] <= np.log(PERSISTENCE):
            of[of == low] = high
    return of
