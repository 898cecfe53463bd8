"""The kinds of model by name. A new kind needs its own file and one line here."""

from typing import NamedTuple


class KindModule(NamedTuple):
    """The modules of a kind of model, and what its config may choose.

    `module` defines `KIND`, a `models.version.kind.Kind`. `learner` defines `learn`, a
    `models.training.learner.Learn`; it alone may import torch. A `fixed` kind has one score and one
    strategy, so that its config may name neither.
    """

    module: str
    learner: str
    fixed: bool


KINDS = {
    "vae": KindModule("models.kinds.vae", "models.training.autoencoder", fixed=False),
    "mahalanobis": KindModule(
        "models.kinds.mahalanobis", "models.training.mahalanobis", fixed=True
    ),
}
