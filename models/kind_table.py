"""The kinds of model by name. A new kind needs its own file and one line here."""

from typing import NamedTuple


class KindModule(NamedTuple):
    """The module of a kind of model, and what its config may choose.

    `module` defines `KIND`, a `models.version.kind.Kind`, and `learn`, a
    `models.training.learner.Learn`. A `fixed` kind has one score and one strategy: its config may
    name neither.
    """

    module: str
    fixed: bool


KINDS = {
    "vae": KindModule("models.kinds.vae", fixed=False),
    "mahalanobis": KindModule("models.kinds.mahalanobis", fixed=True),
}
