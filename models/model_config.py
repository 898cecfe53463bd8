"""The parts of a config with fields of their own: the network, and the draws from its generator."""

from dataclasses import dataclass
from typing import Any, ClassVar

from models.errors import ConfigError

TARGETS = ("auto", "soft", "hard")
CHOICES = ("reservoir", "herding")
REGIMES = ("plain", "stable")
LIKELIHOODS = ("auto", "gaussian", "bernoulli")
# Pydantic reads this when it validates these classes for the service: unknown fields are errors.
FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def check_choice(field_name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{field_name}: choose one of {', '.join(choices)}")


def checked_number(field_name: str, value: object, low: float, high: float) -> float:
    """Return `value`; raise ConfigError unless it is a number strictly between `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ConfigError(f"{field_name}: give a number above {low:g} and below {high:g}")
    return float(value)


@dataclass(frozen=True, slots=True)
class Replay:
    """How vectors are drawn from the previous version's generator.

    `latents`: `fitted` draws z from the mixture fitted to the aggregate posterior; `prior` draws z
    from N(0, I), as the literature does. `decode`: `sample` draws x from the decoder's
    distribution; `mean` takes its mean.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    latents: str = "fitted"
    decode: str = "sample"

    def __post_init__(self) -> None:
        check_choice("replay.latents", self.latents, ("fitted", "prior"))
        check_choice("replay.decode", self.decode, ("sample", "mean"))


@dataclass(frozen=True, slots=True)
class Model:
    """The network, its training and the data that it keeps.

    A field that is None is chosen from the dimension and the number of vectors. `regime`: `stable`
    trains for little forgetting: with dropout, in small batches, and with a learning rate that
    starts high and decays from experience to experience (Mirzadeh et al., 2020: the loss of a task
    rises by at most lambda_max / 2 times the squared distance that its weights move). `exemplars`:
    the most real vectors that a strategy may keep, if it keeps any. `choice`: `reservoir` keeps a
    balanced random sample; `herding` keeps vectors whose mean is close to the mean of their regime.
    `targets`: what strategy `replay` learns from replayed vectors. `hard`: the vectors alone.
    `soft`: also the previous version's codes and reconstructions of them. `auto`: `soft` if codes
    have eight dimensions or more, else `hard`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    latent: int | None = None
    hidden: tuple[int, ...] | None = None
    likelihood: str = "auto"
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    dropout: float = 0.0
    regime: str = "plain"
    exemplars: int | None = None
    choice: str = "reservoir"
    targets: str = "auto"

    def __post_init__(self) -> None:
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
            if not 1 <= len(self.hidden) <= 8:
                raise ConfigError(f"model.hidden: give 1 to 8 layers, not {len(self.hidden)}")
        for width in self.hidden or ():
            checked_number("model.hidden", width, 0, 8193)
        for name, high in (("latent", 1025), ("epochs", 10_001), ("batch_size", 65_537)):
            if getattr(self, name) is not None:
                checked_number(f"model.{name}", getattr(self, name), 0, high)
        if self.learning_rate is not None:
            checked_number("model.learning_rate", self.learning_rate, 0, 1)
        if self.dropout != 0:
            checked_number("model.dropout", self.dropout, 0, 1)
        check_choice("model.likelihood", self.likelihood, LIKELIHOODS)
        check_choice("model.regime", self.regime, REGIMES)
        if self.exemplars is not None:
            checked_number("model.exemplars", self.exemplars, 0, 1_000_001)
        check_choice("model.choice", self.choice, CHOICES)
        check_choice("model.targets", self.targets, TARGETS)
