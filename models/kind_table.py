"""The kinds of model by name: where each is found. A new kind is its own file and one line here."""

from typing import NamedTuple


class Place(NamedTuple):
    """Where a kind of model is found, and what its config may choose.

    `module` has `KIND`, a `models.version.kind.Kind`, and `learn`, a
    `models.training.learner.Learn`. `fixed` kinds have one score and one way to learn: their
    config names neither.
    """

    module: str
    fixed: bool


KINDS = {
    "vae": Place("models.kinds.vae", fixed=False),
    "mahalanobis": Place("models.kinds.mahalanobis", fixed=True),
}
