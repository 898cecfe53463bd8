"""The strategies: what represents the past while an experience is learned.

A strategy is a function of the previous version and the config that returns a `Past`. `PASTS` lists
the strategies by name, and a config may join several with `+`. The training loop knows a strategy
only by its `Past`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial, reduce

from models.arrays import Array
from models.config import Config
from models.parts.network import Network
from models.strategies.alignment import alignment
from models.strategies.distillation import distillation_on_new
from models.strategies.ewc import consolidation, fisher_information
from models.strategies.exemplars import (
    Choice,
    keep_all,
    keep_by_herding,
    keep_by_reservoir,
    keep_newest,
)
from models.strategies.growth import grow
from models.strategies.step_losses import ExtraLoss, Remember
from models.version.version import Version

EXEMPLARS = 500  # exemplars kept if the config gives no number
# If the codes of old vectors must stay, the codes of a new regime need room beside them. In two
# dimensions there is too little room: the AUROC falls from 0.97 to 0.89 on two regimes in the
# plane. From eight dimensions on the answers help.
ROOM = 8
DROPOUT = 0.1  # activates the idle units of a growing network


@dataclass(frozen=True, slots=True)
class Past:
    """What represents the past in the training loop. Fields that are not used keep their default.

    - `learned`: how many old vectors the past represents; the config's weights turn it into w_prev.
    - `generator`: the version from which old rows are drawn anew in every epoch.
    - `teacher`: the version whose answers on old rows are learned together with the rows.
    - `exemplars`: real old vectors, scaled (m, d), from which old rows are drawn; if there is a
      generator too, half of the old rows come from each.
    - `vectors`: real old vectors, scaled (m, d), learned again as if they were new.
    - `window`: how many of the newest vectors, old and new, are learned at most.
    - `warm`: whether training continues from the previous weights.
    - `grown`: a grown network from which training starts instead; it is compacted afterwards.
    - `dropout`: the dropout while training, if the config sets none.
    - `frozen`: prefixes of the names of parameters that are not trained.
    - `extras`: losses added to the loss of every step.
    - `remember`: functions that compute what the next training's `extras` need.
    - `answers`: whether a solver learns the previous solver's answers on the new vectors.
    - `keep`: chooses the real vectors that the new version keeps.
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
        """Join two pasts: take each field from the past that sets it, and concatenate tuples."""
        joined = {}
        for f in fields(self):
            value, other_value = getattr(self, f.name), getattr(other, f.name)
            if isinstance(value, tuple):
                joined[f.name] = value + other_value
            else:
                joined[f.name] = other_value if value is f.default else value
        return Past(**joined)


def replay(previous: Version | None, config: Config) -> Past:
    """Draw old vectors from `generator = copy(previous)` and keep nothing real.

    Shin et al., Continual learning with deep generative replay, 2017; Wiewel & Yang, Continual
    learning for anomaly detection with variational autoencoder, 2019: solver and generator are one
    VAE, and L = w_new E_new[loss] + w_prev E_generator[loss]. The config's `replay` says how to
    draw from the generator. As in Shin et al., the solver's answers are replayed with the vectors;
    here these are the previous version's codes and reconstructions. The loss of an old vector is
    -ELBO + D(x), with D as in `distillation`. With `model.targets: hard`, or with `auto` and too
    few code dimensions, it is -ELBO alone, as in Wiewel & Yang.
    """
    if previous is None:
        return Past()
    targets = config.network_choices.targets
    soft = previous.network.shape.latent >= ROOM if targets == "auto" else targets == "soft"
    return Past(
        _vectors_learned(previous),
        generator=previous.with_config(config),
        teacher=previous if soft else None,
    )


def finetune(previous: Version | None, config: Config) -> Past:
    """Continue from the previous weights with the new vectors alone: the lower bound."""
    del previous, config
    return Past()


def joint(previous: Version | None, config: Config) -> Past:
    """Keep every vector, and learn all of them again from scratch: the upper bound."""
    del config
    return Past(vectors=previous.kept if previous else None, warm=False, keep=keep_all)


def window(previous: Version | None, config: Config) -> Past:
    """Learn from the last window alone, from scratch: a moving window.

    The window is the newest experience. With `model.exemplars` it is that number of the newest
    vectors, and the old ones among them are kept.
    """
    size = config.network_choices.exemplars
    if size is None:
        return Past(warm=False)
    kept = previous.kept if previous else None
    return Past(vectors=kept, window=size, warm=False, keep=partial(keep_newest, size=size))


def reservoir(previous: Version | None, config: Config) -> Past:
    """Replay a bounded, balanced store of real vectors, with one partition for each regime.

    Kim et al., Imbalanced continual learning with partitioning reservoir sampling, 2020; see
    `exemplars.keep_by_reservoir`. `model.choice: herding` fills it by iCaRL's herding instead.
    """
    model = config.network_choices
    choose = keep_by_herding if model.choice == "herding" else keep_by_reservoir
    keep = partial(choose, size=model.exemplars or EXEMPLARS)
    kept = previous.kept if previous and len(previous.kept) else None
    return Past(_vectors_learned(previous), exemplars=kept, keep=keep)


def distillation(previous: Version | None, config: Config) -> Past:
    """Replay with the previous version's answers, whatever `model.targets` says."""
    return replace(replay(previous, config), teacher=previous)


def lwf(previous: Version | None, config: Config) -> Past:
    """Learn the new vectors with the previous version's answers on them; see `distillation`."""
    del config
    if previous is None:
        return Past()
    extras = (partial(distillation_on_new, previous),)
    return Past(_vectors_learned(previous), extras=extras, answers=True)


def icarl(previous: Version | None, config: Config) -> Past:
    """Replay exemplars chosen by herding, with the previous version's answers on them.

    Rebuffi et al., iCaRL: incremental classifier and representation learning, 2017.
    """
    keep = partial(keep_by_herding, size=config.network_choices.exemplars or EXEMPLARS)
    return replace(reservoir(previous, config), keep=keep, teacher=previous)


def ewc(previous: Version | None, config: Config) -> Past:
    """Learn the new vectors; penalise changes of weights that the past needs; see `ewc`."""
    del config
    extras = (partial(consolidation, previous),) if previous else ()
    return Past(_vectors_learned(previous), extras=extras, remember=(fisher_information,))


def replay_alignment(previous: Version | None, config: Config) -> Past:
    """Learn the new vectors; decode and encode old codes as before; see `alignment`."""
    del config
    extras = (partial(alignment, previous),) if previous else ()
    return Past(_vectors_learned(previous), extras=extras)


def fixed(previous: Version | None, config: Config) -> Past:
    """Train features on the first experience alone; later experiences fit only the last layer.

    This is the baseline `fixed representation` of iCaRL (Rebuffi et al., 2017). Here the decoder's
    last layer and the noise still learn.
    """
    del config
    if previous is None:
        return Past()
    inner = (f"decoder.layers.{i}." for i in range(len(previous.network.shape.hidden)))
    return Past(frozen=("encoder.", *inner))


def expand(previous: Version | None, config: Config) -> Past:
    """Grow hidden units for the new regime, and keep the previous answers on replayed vectors.

    Structure-incremental learning: see `growth`. Dropout activates idle units.
    """
    if previous is None:
        return Past(dropout=DROPOUT)
    grown = grow(previous.network, config.seed + previous.lineage.experiences)
    return replace(distillation(previous, config), dropout=DROPOUT, grown=grown)


def _vectors_learned(previous: Version | None) -> int:
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


def past_of(previous: Version | None, config: Config) -> Past:
    """Return what represents the past under the config's strategy, or its strategies joined."""
    if previous is not None and not previous.network.tensors:
        # The previous version has no network. Only vectors drawn from that version can be learned.
        return replace(replay(previous, config), warm=False, teacher=None)
    parts = [PASTS[name](previous, config) for name in config.strategy.split("+")]
    return reduce(Past.__or__, parts)
