"""The scores by name: the arrays that an artifact keeps for each, and its function."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from models.arrays import Array, Float64
from models.parts.mixture import Mixture
from models.parts.network import Network
from models.parts.regimes import Boundaries
from models.scores.auto import Auto, drawn
from models.scores.by_regime import ScoreByRegime, from_tensors
from models.scores.elbo import Scorer, blocks
from models.scores.generated_bank import generated_codes
from models.scores.hidden import Hidden
from models.scores.iwae import ImportanceWeighted
from models.scores.just_in_time import JustInTime
from models.scores.neighbours import Neighbours

RELATIVE = "+regime"
PLAIN = ("elbo", "reconstruction", "hidden")  # scores that need the network alone
# Scores under which the decoder's noise makes a generated vector score higher than real ones.
SHARP = ("hidden", "neighbours", "jit")
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


def base(kind: str) -> str:
    """Return the name without `+regime`."""
    return kind.removesuffix(RELATIVE)


def prepare(kind: str, network: Network, latents: Mixture, seed: int) -> dict[str, Array]:
    """Return the named arrays that the score `kind` needs beside network and mixture."""
    if base(kind) == "auto":
        return drawn(network, latents, np.random.default_rng([seed, 9]))
    if base(kind) not in BANKED:
        return {}
    return {"codes": generated_codes(network, latents, np.random.default_rng([seed, 9]))}


def scorer(kind: str, network: Network, latents: Mixture, needs: Mapping[str, Array]) -> Score:
    """Return the score named `kind`, one of `config.SCORES`; `needs` is `prepare`'s result.

    With `+regime`, `needs` also has the tables of `models.scores.by_regime` and the boundaries of
    the regimes.
    """
    tables, boundaries = from_tensors(needs), Boundaries.from_tensors(needs)
    if kind.endswith(RELATIVE) and tables and boundaries:
        return ScoreByRegime(
            scorer(base(kind), network, latents, needs), network, boundaries, tables
        )
    kind = base(kind)
    if kind in BANKED:
        return BANKED[kind](network, needs["codes"])
    if kind in ("iwae", "hidden"):
        return ImportanceWeighted(network, latents) if kind == "iwae" else Hidden(network)
    if kind == "auto":
        return Auto.from_tensors(network, needs)
    return Scorer(kind, network, latents if kind == "fitted" else None)


def in_blocks(score: Score, x: Array) -> Float64:
    """Return the score of each row of x (n, d), scaled, computed in blocks that fit the cache."""
    return np.concatenate([score(x[rows]) for rows in blocks(*x.shape)] or [np.empty(0)])
