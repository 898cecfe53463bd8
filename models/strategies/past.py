"""What stands for the past while an experience is learned: the strategies.

A strategy is a function of (previous version, config) that returns a `Past`; `PASTS` names them
all, and a config may join several with `+`. The training loop reads the answer and knows nothing
else of a strategy.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial, reduce

from models.arrays import Array
from models.config import Config, Model
from models.parts.network import Network
from models.strategies.alignment import alignment
from models.strategies.distillation import of_new
from models.strategies.ewc import consolidation, fisher_information
from models.strategies.exemplars import Choice, everything, herded, last, reserved
from models.strategies.growth import grow
from models.strategies.step_losses import ExtraLoss, Remember
from models.version.version import Version

EXEMPLARS = 500  # kept where the config does not say how many
# Where codes of old vectors are to stay, a new regime's need room beside them. In two dimensions
# they get into each other's way (AUROC .97 to .89 on two regimes in the plane), in eight and more
# the answers help.
ROOM = 8
DROPOUT = 0.1  # wakes the idle units of a network that grows


@dataclass(frozen=True, slots=True)
class Past:
    """The past as the training loop sees it. What a strategy does not use is left at its default.

    `learned`: how many old vectors the past stands for; with the config's weights, w_prev.
    `generator`: the version old rows are drawn from afresh in every epoch.
    `teacher`: the version whose answers on old rows are learned with the rows.
    `exemplars`: real old vectors, scaled (m, d), that old rows are drawn from; beside a
    generator, half of them.
    `vectors`: real old vectors, scaled (m, d), learned again as if they were new; `window`: how
    many of those and the new, the newest, are learned from at most.
    `warm`: whether training goes on from the previous weights.
    `grown`: the network, grown, that it goes on from instead, to be compacted when trained;
    `dropout`: while training, where the config asks for none.
    `frozen`: parameters left as they are, by the beginning of their names.
    `extras`: losses added to every step's; `remember`: what the next `extras` need to know.
    `answers`: whether a solver head learns from the previous one's answers on the new vectors.
    `keep`: which real vectors the new version keeps.
    """

    learned: int = 0
    generator: Version | None = None
    teacher: Version | None = None
    exemplars: Array | None = None
    vectors: Array | None = None
    window: int | None = None
    warm: bool = True
    grown: Network | None = None
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()
    extras: tuple[ExtraLoss, ...] = ()
    remember: tuple[Remember, ...] = ()
    answers: bool = False
    keep: Choice | None = None

    @property
    def replays(self) -> bool:
        """Whether batches hold old rows."""
        return self.generator is not None or self.exemplars is not None

    def __or__(self, other: "Past") -> "Past":
        """Join two pasts: what either has; tuples one after the other."""
        joined = {}
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, tuple):
                joined[f.name] = mine + theirs
            else:
                joined[f.name] = theirs if mine is f.default else mine
        return Past(**joined)


def replay(previous: Version | None, config: Config) -> Past:
    """Draw old vectors from `generator = copy(previous)` and keep nothing real.

    Shin et al., Continual learning with deep generative replay, 2017; Wiewel & Yang, Continual
    learning for anomaly detection with variational autoencoder, 2019: solver and generator are
    one VAE, and L = w_new E_new[loss] + w_prev E_generator[loss]. How the generator is drawn
    from is the config's `replay`. As in Shin et al. the solver's answers are replayed with the
    vectors, here the previous version's codes and reconstructions of them: an old vector's loss is
    -ELBO + D(x), with D as in `distillation`. With `model.targets: hard`, and where codes
    have too few dimensions for that, it is -ELBO alone, as in Wiewel & Yang.
    """
    if previous is None:
        return Past()
    targets = _model(config).targets
    soft = previous.network.shape.latent >= ROOM if targets == "auto" else targets == "soft"
    return Past(
        _learned(previous),
        generator=previous.with_config(config),
        teacher=previous if soft else None,
    )


def finetune(previous: Version | None, config: Config) -> Past:
    """Go on from the previous weights with the new vectors alone: the lower bound."""
    del previous, config
    return Past()


def joint(previous: Version | None, config: Config) -> Past:
    """Keep every vector and learn all of them again from scratch: the upper bound."""
    del config
    return Past(vectors=previous.kept if previous else None, warm=False, keep=everything)


def window(previous: Version | None, config: Config) -> Past:
    """Learn from the last window alone, from scratch: a moving window.

    The window is the newest experience or, with `model.exemplars`, the newest so many vectors,
    of which those that are not new are kept.
    """
    size = _model(config).exemplars
    if size is None:
        return Past(warm=False)
    kept = previous.kept if previous else None
    return Past(vectors=kept, window=size, warm=False, keep=partial(last, size=size))


def reservoir(previous: Version | None, config: Config) -> Past:
    """Replay a bounded, balanced store of real vectors, one partition for each regime.

    Kim et al., Imbalanced continual learning with partitioning reservoir sampling, 2020; see
    `exemplars.reserved`. `model.choice: herding` fills it by iCaRL's herding instead.
    """
    size = _model(config).exemplars or EXEMPLARS
    choice = {"reservoir": reserved, "herding": herded}[_model(config).choice]
    keep = partial(choice, size=size)
    if previous is None or not len(previous.kept):
        return Past(_learned(previous), keep=keep)
    return Past(_learned(previous), exemplars=previous.kept, keep=keep)


def distillation(previous: Version | None, config: Config) -> Past:
    """Replay with the previous version's answers, whatever `model.targets` says.

    van de Ven et al., Brain-inspired replay, 2020: see `distillation`.
    """
    return replace(replay(previous, config), teacher=previous)


def lwf(previous: Version | None, config: Config) -> Past:
    """Learn the new alone, answering on it as the previous version did.

    Li & Hoiem, Learning without forgetting, 2016; see `distillation.of_new`.
    """
    del config
    if previous is None:
        return Past()
    return Past(_learned(previous), extras=(partial(of_new, previous),), answers=True)


def icarl(previous: Version | None, config: Config) -> Past:
    """Replay herded exemplars, with distillation on them.

    Rebuffi et al., iCaRL: incremental classifier and representation learning, 2017: exemplars
    chosen by herding, loss + distillation on exemplars and new.
    """
    keep = partial(herded, size=_model(config).exemplars or EXEMPLARS)
    return replace(reservoir(previous, config), keep=keep, teacher=previous)


def ewc(previous: Version | None, config: Config) -> Past:
    """Learn the new alone, held to the previous weights as firmly as the past needs each.

    Kirkpatrick et al., Overcoming catastrophic forgetting, 2017, made online by Schwarz et al.,
    Progress & compress, 2018; see `ewc`.
    """
    if previous is None:
        return Past(remember=(fisher_information,))
    del config
    extra = partial(consolidation, previous)
    return Past(_learned(previous), extras=(extra,), remember=(fisher_information,))


def replay_alignment(previous: Version | None, config: Config) -> Past:
    """Learn the new alone, decoding and encoding old codes as the previous version did.

    Wu et al., Memory replay GANs, 2018, second way; see `alignment`.
    """
    del config
    if previous is None:
        return Past()
    return Past(_learned(previous), extras=(partial(alignment, previous),))


def fixed(previous: Version | None, config: Config) -> Past:
    """Let only the first experience train the features: later ones fit the last layer to them.

    The arm `fixed representation` of iCaRL (Rebuffi et al., 2017); here the decoder's last layer
    and its noise are what still learns.
    """
    if previous is None:
        return Past()
    layers = len(previous.network.shape.hidden)
    inner = tuple(f"decoder.layers.{i}." for i in range(layers))
    del config
    return Past(frozen=("encoder.", *inner))


def expand(previous: Version | None, config: Config) -> Past:
    """Grow hidden units for the new regime; adapt to it and preserve the old ones' answers.

    Structure-incremental learning: see `growth`. What is preserved is what the previous
    version answers on vectors replayed from it; dropout wakes idle units.
    """
    if previous is None:
        return Past(dropout=DROPOUT)
    grown = grow(previous.network, config.seed + previous.lineage.experiences)
    return replace(distillation(previous, config), dropout=DROPOUT, grown=grown)


def _model(config: Config) -> Model:
    return Model() if config.model == "auto" else config.model


def _learned(previous: Version | None) -> int:
    return previous.lineage.learned if previous else 0


PASTS: dict[str, Callable[[Version | None, Config], Past]] = {
    "replay": replay,
    "finetune": finetune,
    "joint": joint,
    "window": window,
    "reservoir": reservoir,
    "distillation": distillation,
    "lwf": lwf,
    "ewc": ewc,
    "replay_alignment": replay_alignment,
    "fixed": fixed,
    "icarl": icarl,
    "expand": expand,
}


def past(previous: Version | None, config: Config) -> Past:
    """Return the past of the config's strategy, or of several joined by `+`."""
    if previous is not None and not previous.network.tensors:
        # There is no network to continue from; only its draws can be learned.
        return replace(replay(previous, config), warm=False, teacher=None)
    parts = [PASTS[name](previous, config) for name in config.strategy.split("+")]
    return reduce(Past.__or__, parts)
