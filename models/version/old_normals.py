"""Vectors that stand in for old normals, which are no longer held."""

import numpy as np

from models.arrays import Array
from models.parts.carried_calibration import GENERATED, resembling
from models.parts.views import Views
from models.scores.auto import Auto, learned_pictures, lifts_of, parts_of
from models.scores.by_name import RAISED_BY_NOISE, judges_pictures, with_less_noise
from models.version.version import Version


def like_old_normals(version: Version, score: str, n: int, rng: np.random.Generator) -> Array:
    """Draw scaled vectors (n, d) that score like the version's old normals under `score`."""
    views = Views.from_tensors(version.scoring)
    if views and not learned_pictures(version.network):
        # The views keep components that were fitted to real vectors. A network learns its own draws
        # in every training, so it gives them lower scores than real vectors.
        return version.scaler.valid(views.sample(n, rng))
    # Draw as faithfully as possible, whatever the config's `replay`. If decoder means were drawn,
    # every real vector would score beyond the range of the drawn ones.
    drawn = version.with_faithful_draws().draw(n, rng)
    if score not in RAISED_BY_NOISE and not judges_pictures(score, version.network):
        return drawn
    return version.scaler.valid(with_less_noise(version.network, drawn, rng))


def resembling_old_normals(version: Version, n: int, rng: np.random.Generator) -> Array:
    """Draw scaled vectors (n, d) that have the scores of old normals by each part of `auto`.

    They may calibrate a version. Most vectors of `like_old_normals` have a pair of values that
    never occurs, so by the trees they score far higher than old normals.
    """
    score = version.config.score
    if "auto.tables" not in version.scoring:
        return like_old_normals(version, score, n, rng)
    drawn = like_old_normals(version, score, GENERATED, rng)
    auto = Auto.from_tensors(version.network, version.scoring)
    tables = version.scoring["auto.tables"] - lifts_of(auto.counted)
    chosen = rng.permutation(resembling(parts_of(auto, drawn), tables, rng))
    return drawn[list(dict.fromkeys(chosen.tolist()))[:n]]
