"""The scores by name: the arrays that an artifact keeps for each, and its function."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from models.arrays import Array, Float64
from models.parts.mixture import Mixture
from models.parts.network import Network
from models.parts.regimes import Boundaries
from models.scores.auto import Auto, learned_pictures, needs_from_draws
from models.scores.by_regime import ScoreByRegime, from_tensors
from models.scores.elbo import Scorer, row_blocks
from models.scores.generated_bank import generated_codes
from models.scores.hidden import Hidden
from models.scores.iwae import ImportanceWeighted
from models.scores.just_in_time import JustInTime
from models.scores.neighbours import Neighbours

BY_REGIME = "+regime"
NETWORK_ALONE = ("elbo", "reconstruction", "hidden")  # scores that need the network alone
# Scores under which the decoder's noise makes a generated vector score higher than real ones.
RAISED_BY_NOISE = ("hidden", "neighbours", "jit")
BANKED: dict[str, type[Neighbours] | type[JustInTime]] = {
    "neighbours": Neighbours,
    "jit": JustInTime,
}


class Score(Protocol):
    """A function of scaled vectors (n, d), with its explanation; safe from several threads."""

    def __call__(self, x: Array) -> Float64:
        """Return the score of each row, (n,), float32-valued: higher is more anomalous."""

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's share and its expected value, scaled, (n, d) each."""


def base_score(name: str) -> str:
    """Return the name without `+regime`."""
    return name.removesuffix(BY_REGIME)


def score_arrays(name: str, network: Network, latents: Mixture, seed: int) -> dict[str, Array]:
    """Return the named arrays that the score `name` needs beside network and mixture."""
    if base_score(name) == "auto":
        return needs_from_draws(network, latents, np.random.default_rng([seed, 9]))
    if base_score(name) not in BANKED:
        return {}
    return {"codes": generated_codes(network, latents, np.random.default_rng([seed, 9]))}


def score_named(name: str, network: Network, latents: Mixture, needs: Mapping[str, Array]) -> Score:
    """Return the score of this name, one of `config.SCORES`; `needs` has its arrays.

    With `+regime`, `needs` also has the tables of `models.scores.by_regime` and the boundaries of
    the regimes.
    """
    tables, boundaries = from_tensors(needs), Boundaries.from_tensors(needs)
    if name.endswith(BY_REGIME) and tables and boundaries:
        return ScoreByRegime(
            score_named(base_score(name), network, latents, needs), network, boundaries, tables
        )
    name = base_score(name)
    if name in BANKED:
        return BANKED[name](network, needs["codes"])
    if name in ("iwae", "hidden"):
        return ImportanceWeighted(network, latents) if name == "iwae" else Hidden(network)
    if name == "auto":
        return Auto.from_tensors(network, needs)
    return Scorer(name, network, latents if name == "fitted" else None)


def score_rows(score: Score, x: Array) -> Float64:
    """Return the score of each row of x (n, d), scaled, in blocks that fit the cache."""
    return np.concatenate([score(x[rows]) for rows in row_blocks(*x.shape)] or [np.empty(0)])


def judges_pictures(name: str, network: Network) -> bool:
    """Return whether `auto` judges pictures: then the decoder's noise raises one of its parts."""
    return base_score(name) == "auto" and learned_pictures(network)


def with_less_noise(network: Network, drawn: Array, rng: np.random.Generator) -> Array:
    """Return scaled vectors `drawn` (n, d) with a random share of their noise, from 0 to 1.

    Under a score that the decoder's noise raises, they score like real vectors.
    """
    without_noise = network.decode(network.encode(drawn)[0])
    share = rng.random((len(drawn), 1), dtype=np.float32)
    return without_noise + share * (drawn - without_noise)
