"""The part of a detector's configuration that says how a version learns and judges."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.columns import MAX_DIMENSION, Column
from models.context import Context
from models.errors import ConfigError, VectorError
from models.kind_table import KINDS
from models.model_config import FORBID_UNKNOWN, Model, Replay, check_choice, checked_number

MIN_VECTORS = 32  # with fewer normals no model can say anything about a 1 % tail

STRATEGIES = (
    "replay", "finetune", "joint", "replay_alignment", "distillation", "ewc", "reservoir", "window",
    "fixed", "icarl", "lwf", "expand",
)  # fmt: skip
ALONE = ("finetune", "joint", "window", "fixed", "expand")  # cannot be joined with another
SCORES = ("auto", "elbo", "reconstruction", "fitted", "iwae", "hidden", "neighbours", "jit")
THRESHOLDS = ("fpr", "pot", "quantile", "value", "labels")
MISSING = ("refuse", "impute")
WEIGHTS = ("proportional", "equal", "auto")

Policy = Mapping[str, Any]  # the policy's name, with its number or with the criterion for `labels`


def check_strategy(strategy: str) -> None:
    """Raise ConfigError unless `strategy` is a known one, or several joined by `+`."""
    names = strategy.split("+")
    for name in names:
        check_choice("strategy", name, STRATEGIES)
    lonely = [name for name in names if name in ALONE]
    if len(set(names)) < len(names) or (lonely and len(names) > 1):
        raise ConfigError(f"strategy: each at most once, and {', '.join(ALONE)} alone")


def check_score(score: str) -> None:
    """Raise ConfigError unless `score` is a known one, with or without `+regime`."""
    base, plus, relative = score.partition("+")
    check_choice("score", base, SCORES)
    if plus and relative != "regime":
        raise ConfigError("score: only '+regime' can be added to a score")


def check_weights(weights: str | Mapping[str, float]) -> None:
    """Raise ConfigError unless `weights` is a policy of `models.training.mixing`."""
    if isinstance(weights, str):
        check_choice("weights", weights, WEIGHTS)
    elif set(weights) == {"half_life"}:
        checked_number("weights.half_life", weights["half_life"], 0, math.inf)
    elif set(weights) == {"w_prev", "w_new"}:
        w_new = checked_number("weights.w_new", weights["w_new"], 0, 1 + 1e-9)
        w_prev = checked_number("weights.w_prev", weights["w_prev"], -1, 1)
        if w_prev < 0 or abs(w_prev + w_new - 1) > 1e-6:
            raise ConfigError("weights: w_prev and w_new must not be negative and must sum to 1")
    else:
        raise ConfigError(
            f"weights: give one of {', '.join(WEIGHTS)}, {{'w_prev': a, 'w_new': b}}, "
            "{'half_life': experiences}"
        )


def check_threshold(policy: Policy) -> None:
    """Raise ConfigError unless `policy` is exactly one threshold policy with a valid value."""
    if len(policy) != 1:
        choices = ", ".join(THRESHOLDS)
        raise ConfigError(f"threshold: give one policy of {choices}, not {len(policy)}")
    (name, value), *_ = policy.items()
    check_choice("threshold", name, THRESHOLDS)
    if name == "labels":
        _check_criterion(value)
        return
    bounds = {
        "fpr": (0, 0.5 + 1e-12),
        "pot": (0, 0.1 + 1e-12),
        "quantile": (0.5 - 1e-12, 1),
        "value": (-3.4e38, 3.4e38),
    }
    checked_number(f"threshold.{name}", value, *bounds[name])


def _check_criterion(criterion: object) -> None:
    given = criterion if isinstance(criterion, Mapping) else {}
    if set(given) not in ({"beta"}, {"miss", "false_alarm"}):
        raise ConfigError("threshold.labels: give {'beta': b}, or {'miss': a, 'false_alarm': b}")
    for name, value in given.items():
        checked_number(f"threshold.labels.{name}", value, 0, 1e6)


@dataclass(frozen=True)
class Config:
    """How a detector learns and judges. The defaults suit vectors that nobody has tuned for.

    Raises ConfigError for a value that cannot be used; the error names the field and the supported
    values. The service chooses a context for `auto`. The library has no timestamps, so there `auto`
    means no context.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    dimension: int | None = None
    features: tuple[str, ...] | None = None
    columns: tuple[Column, ...] | None = None
    context: Context | Literal["auto"] | None = None
    kind: str = "vae"
    strategy: str = "replay"
    weights: str | dict[str, float] = "proportional"
    replay: Replay = field(default_factory=Replay)
    score: str = "auto"
    threshold: dict[str, float | dict[str, float]] = field(default_factory=lambda: {"fpr": 0.01})
    missing: str = "refuse"
    model: Literal["auto"] | Model = "auto"
    seed: int = 0
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.context, Context) or self.context in (None, "auto")):
            raise ConfigError("context: give null, 'auto', or an object")
        self._check_columns()
        self._check_shape()
        check_choice("kind", self.kind, tuple(KINDS))
        check_strategy(self.strategy)
        check_score(self.score)
        check_choice("missing", self.missing, MISSING)
        if KINDS[self.kind].fixed and (
            self.strategy != "replay" or self.score not in {"auto", "elbo"}
        ):
            raise ConfigError(
                f"kind: {self.kind} has its own score and keeps its regimes by itself; leave "
                "strategy and score out"
            )
        if self.words and self.model != "auto" and self.model.likelihood == "bernoulli":
            raise ConfigError("model.likelihood: bernoulli is for pictures, not for categories")
        check_weights(self.weights)
        check_threshold(self.threshold)
        if not 0 <= self.seed < 2**32:
            raise ConfigError("seed: give a whole number from 0 to 4294967295")

    def _check_columns(self) -> None:
        """Check the columns' names, and set the dimension to their number."""
        for name in ("features", "columns"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.features is not None and self.columns is not None:
            raise ConfigError("columns: give `columns` or `features`, not both")
        if self.names is not None:
            self._check_names("features" if self.columns is None else "columns", self.names)
        if self.dimension is not None:
            checked_number("dimension", self.dimension, 0, MAX_DIMENSION + 1)
            if (self.width or 0) > MAX_DIMENSION:
                derived = f"more than {MAX_DIMENSION} features"
                raise ConfigError(f"context: it would derive {derived}; use fewer columns")

    def _check_names(self, field_name: str, names: tuple[str, ...]) -> None:
        if not names:
            raise ConfigError(f"{field_name}: give one name for each feature, or null")
        if len(set(names)) != len(names):
            raise ConfigError(f"{field_name}: the names must be distinct")
        if self.dimension is None:
            object.__setattr__(self, "dimension", len(names))
        elif len(names) != self.dimension:
            raise ConfigError(f"{field_name}: {len(names)} names for dimension {self.dimension}")

    def _check_shape(self) -> None:
        """Check the shape of pictures, and set the dimension to the number of their pixels."""
        if self.shape is None:
            return
        object.__setattr__(self, "shape", tuple(self.shape))
        height, width = self.shape
        if not (min(self.shape) >= 1 and height * width <= MAX_DIMENSION):
            raise ConfigError(
                f"shape: a picture has at most {MAX_DIMENSION} pixels, and at least one"
            )
        if self.context is not None or self.words:
            raise ConfigError("shape: a picture has neither a context nor categories")
        if self.dimension is None:
            object.__setattr__(self, "dimension", height * width)
        elif self.dimension != height * width:
            raise ConfigError(
                f"shape: {height} by {width} are {height * width} pixels, not {self.dimension}"
            )

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the columns; None if none are given."""
        if self.columns is not None:
            return tuple(column.name for column in self.columns)
        return self.features

    @property
    def network_choices(self) -> Model:
        """The choices for the network; with `model: auto` all of them are open."""
        return Model() if self.model == "auto" else self.model

    @property
    def derived_by(self) -> Context | None:
        """The context that derives features; None for `auto` until the service has chosen one."""
        return None if self.context == "auto" else self.context

    @property
    def words(self) -> frozenset[str]:
        """The names of the columns that are categories."""
        return frozenset(column.name for column in self.columns or () if column.type == "category")

    def categories(self, width: int) -> tuple[int, ...]:
        """Return the indices of the categories among a model's `width` features."""
        return self._of_type("category", width) if self.words else ()

    def flags(self, width: int) -> tuple[int, ...]:
        """Return the indices of the flags among a model's `width` features."""
        return self._of_type("flag", width)

    def _of_type(self, name: str, width: int) -> tuple[int, ...]:
        columns = self.columns or ()
        if self.derived_by is None:
            return tuple(j for j, column in enumerate(columns) if column.type == name)
        if not columns:
            return ()
        origins = self.derived_by.origins(self.numbers(self.columns_in(width)))
        return tuple(i for i, (j, _) in enumerate(origins) if j >= 0 and columns[j].type == name)

    def numbers(self, dimension: int) -> NDArray[np.bool_]:
        """Return the mask (d,) of the columns that are numbers."""
        if self.columns is None:
            return np.ones(dimension, bool)
        return np.array([column.type == "number" for column in self.columns])

    @property
    def width(self) -> int | None:
        """How many features the model sees of a row; None while the dimension is unknown."""
        if self.dimension is None or self.derived_by is None:
            return self.dimension
        return self.derived_by.width(self.numbers(self.dimension))

    def columns_in(self, width: int) -> int:
        """Return the number of columns behind `width` features; raise VectorError if none fits."""
        if self.derived_by is None:
            return width
        if self.dimension is None:
            return self.derived_by.columns_in(width)
        if self.width != width:
            raise VectorError(f"vectors: {width} features; the context derives {self.width}")
        return self.dimension

    def column_names(self, width: int) -> tuple[str, ...]:
        """Return the names of the columns behind `width` features; their indices if unnamed."""
        return self.names or tuple(str(j) for j in range(self.columns_in(width)))

    def feature_names(self, width: int) -> tuple[str, ...]:
        """Return the names of `width` features, such as `speed` and `speed, deviation`."""
        columns = self.column_names(width)
        if self.derived_by is None:
            return columns

        def name(j: int, derived: str) -> str:
            if derived == "value":
                return columns[j]
            return derived if j < 0 else f"{columns[j]}, {derived}"

        origins = self.derived_by.origins(self.numbers(len(columns)))
        return tuple(name(*origin) for origin in origins)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole configuration as JSON-able values."""
        values = asdict(replace(self, columns=None))  # slow for tens of thousands of columns
        if self.columns is not None:
            values["columns"] = [column.to_dict() for column in self.columns]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a Config from `to_dict`'s result; ignore unknown fields."""
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        if kept.get("columns") is not None:
            kept["columns"] = tuple(Column(**column) for column in kept["columns"])
        for name, part in (("replay", Replay), ("context", Context), ("model", Model)):
            if isinstance(kept.get(name), Mapping):
                kept[name] = part(**kept[name])
        return cls(**kept)
