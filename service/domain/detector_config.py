"""The configuration of a detector: the options of learning (`models.Config`) and of operation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from models import Config, Model, Replay, Version
from models.columns import MAX_DIMENSION, Column
from models.config import THRESHOLDS
from models.context import Context
from models.errors import ConfigError
from service.domain.row_rules import STRICT, Ignore, Off, RowRules
from service.problems import Unprocessable


@dataclass(frozen=True, slots=True)
class Shadow:
    """How many live vectors a candidate is compared on, and how long the worker waits for them."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    vectors: Annotated[int, Field(ge=1, le=10_000)]
    seconds: Annotated[float, Field(ge=0, le=3600)] = 60


@dataclass(frozen=True, slots=True)
class Retrain:
    """What starts a retraining without a request: a count, an age, or drift."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    min_vectors: Annotated[int, Field(ge=1, le=10_000_000)] | None = 1000
    max_age_seconds: Annotated[float, Field(gt=0, le=31_536_000)] | None = 3600
    on_drift: bool = False
    paused: bool = False
    shadow: Shadow | None = None


@dataclass(frozen=True, slots=True)
class IncidentConfig:
    """How often normals may open an incident, and after how long without an alarm one closes."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    false_per_day: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    close_after_seconds: Annotated[float, Field(ge=1, le=31_536_000)] = 300


_COLUMNS = Field(max_length=MAX_DIMENSION)
_Side = Annotated[int, Field(ge=1, le=4096)]


@dataclass(frozen=True)
class DetectorConfig(Config):
    """The config in the body of `PUT /v1/detectors/{name}`, with its defaults."""

    features: Annotated[tuple[str, ...], _COLUMNS] | None = None
    columns: Annotated[tuple[Column, ...], _COLUMNS] | None = None
    gate: Literal["enforce", "report"] = "enforce"
    admission: Literal["quarantine", "triage", "hold_novel", "accept"] = "quarantine"
    release_after_seconds: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    retrain: Retrain = field(default_factory=Retrain)
    keep_learned_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = 0
    incident: IncidentConfig | None = field(default_factory=IncidentConfig)
    off: Off | None = None
    ignore: Annotated[tuple[Ignore, ...], Field(max_length=100)] | None = None
    shape: tuple[_Side, _Side] | None = None

    @property
    def rules(self) -> RowRules:
        """The rules for rows."""
        return RowRules(self.off, self.ignore or ())

    def to_dict(self) -> dict[str, Any]:
        """Return the full configuration; `retrain.shadow` is left out if it is not set."""
        values = super().to_dict()
        if self.retrain.shadow is None:
            del values["retrain"]["shadow"]
        return values | self.rules.to_dict()


_adapter = TypeAdapter(DetectorConfig)


def stored(text: str) -> DetectorConfig:
    """Return a config read from the store. A config of an earlier release has no incidents."""
    config = parse(text)
    return config if "incident" in from_json(text) else replace(config, incident=None)


def parse(body: bytes | str | Mapping[str, Any]) -> DetectorConfig:
    """Return the configuration in `body`, which is JSON or a decoded JSON object.

    Raises Unprocessable for an invalid config. The error names the field and the allowed values.
    """
    _check_size(body)
    try:
        # Strict validation accepts a list for a tuple in JSON alone, so a mapping becomes JSON
        # first. orjson would refuse its integers of more than 64 bits.
        text = to_json(body) if isinstance(body, Mapping) else body
        return _adapter.validate_json(text or b"{}")
    except ValidationError as error:
        if error.error_count() > _MOST_ERRORS:
            raise Unprocessable(f"More than {_MOST_ERRORS} values are invalid.") from None
        raise Unprocessable(_reason(error)) from None
    except ValueError:
        # pydantic raises for values that JSON cannot hold, such as half of a surrogate pair.
        raise Unprocessable("The config holds a value that JSON has no form for.") from None


_UNCHECKED = 64 * 1024  # bytes or characters; the size of a shorter config is not checked
_MOST_ERRORS = 10_000  # it would take long to name more errors
_OBJECT, _FIELD = re.compile(r'\{\s*["}]'), re.compile(r'"\s*:')


def _check_size(body: bytes | str | Mapping[str, Any]) -> None:
    """Raise Unprocessable for more objects, fields or values than any config has.

    Validation notes every error, which would take seconds for a million of them.
    """
    if isinstance(body, Mapping) or len(body) <= _UNCHECKED:
        return
    text = body if isinstance(body, str) else body.decode(errors="replace")
    crowded = text.count(",") > 4 * MAX_DIMENSION
    if not crowded:
        objects = len(_OBJECT.findall(text))
        named = len(_FIELD.findall(text))
        crowded = objects > MAX_DIMENSION + 1000 or named > 1000 + 4 * objects
    if crowded:
        raise Unprocessable("The config has more fields or values than any config can have.")


MERGED = frozenset({"retrain", "replay", "model"})  # a change may name single fields of these


def changed(stored: DetectorConfig, body: bytes | str) -> DetectorConfig:
    """Return `stored` with the fields that the JSON object `body` changes.

    A field in MERGED is merged field by field. Every other field is replaced as a whole. A null
    sets the value null. Raises Unprocessable as `parse` does.
    """
    values = stored.to_dict()
    for name, value in _change(body).items():
        before = values.get(name)
        by_field = name in MERGED and isinstance(value, dict) and isinstance(before, dict)
        values[name] = before | value if by_field else value
    return parse(values)


def merged(stored: DetectorConfig, body: bytes | str) -> DetectorConfig:
    """Return `stored` changed by a JSON Merge Patch (RFC 7396).

    Objects are merged at every depth, and a null gives a field its default. Raises Unprocessable as
    `parse` does.
    """
    return parse(_merged(stored.to_dict(), _change(body)))


def _change(body: bytes | str) -> dict[str, Any]:
    try:
        change = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Unprocessable(f"The change is not JSON: {error}.") from None
    if not isinstance(change, dict):
        raise Unprocessable("The change of a config must be a JSON object.")
    return change


def _merged(target: object, patch: object) -> Any:
    if not isinstance(patch, dict):
        return patch
    values = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = _merged(values.get(name), value)
    return values


def check_rules(config: DetectorConfig) -> None:
    """Raise Unprocessable if a rule names a column that the detector does not have."""
    width = config.width
    names = config.names or (() if width is None else config.column_names(width))
    try:
        config.rules.check(names, config.words)
    except ConfigError as error:
        raise Unprocessable(f"{error}") from None


# A `PUT` that does not name these fields leaves them unchanged on an existing detector.
KEPT = ("score", "incident")


def left_out(body: bytes | str) -> frozenset[str]:
    """Return the fields of `KEPT` that a valid config `body` does not name."""
    return frozenset(KEPT).difference(from_json(body or b"{}"))


def with_fields_of(
    config: DetectorConfig, stored: DetectorConfig, names: frozenset[str]
) -> DetectorConfig:
    """Return `config` with the fields `names` of `stored`, if both have the same kind of model."""
    if config.kind != stored.kind:
        return config
    return replace(config, **{name: getattr(stored, name) for name in sorted(names)})


def _reason(error: ValidationError) -> str:
    """Return the field of an error and the allowed values, but never the value that was sent."""
    # If a field allows several forms, report the error of the form that matched furthest.
    errors = error.errors(include_input=False, include_url=False)
    first = max(errors, key=lambda error: (error["type"] == "value_error", len(error["loc"])))
    path = [str(part) for part in first["loc"]]
    if first["type"] in _UNKNOWN_FIELD:
        # The client chose the name of an unknown field, so the error must not repeat it.
        *path, _ = path
        known = next((_PARTS[part] for part in reversed(path) if part in _PARTS), DetectorConfig)
        text = f"unknown field; the fields are {', '.join(field.name for field in fields(known))}"
    elif first["type"] == "json_invalid":
        text = f"the config is not JSON: {first['ctx']['error']}"
    elif path[0:1] == ["threshold"] and path[1:2] and path[1] not in THRESHOLDS:
        text = f"choose one of {', '.join(THRESHOLDS)}"
    elif path[0:1] == ["model"] and first["type"] == "literal_error":
        text = f"give 'auto', or an object of {', '.join(field.name for field in fields(Model))}"
    else:
        text = first["msg"].removeprefix("Value error, ")
    field_path = ".".join(part for part in path if part in _KNOWN)
    return text if not field_path or text.startswith(field_path) else f"{field_path}: {text}"


_PARTS: dict[str, type] = {
    "off": Off,
    "ignore": Ignore,
    "columns": Column,
    "context": Context,
    "incident": IncidentConfig,
    "retrain": Retrain,
    "shadow": Shadow,
    "model": Model,
    "replay": Replay,
}
_UNKNOWN_FIELD = {"extra_forbidden", "unexpected_keyword_argument"}
_KNOWN = {"in"} | {
    field.name for kind in (DetectorConfig, *_PARTS.values()) for field in fields(kind)
}


def configured(version: Version, config: DetectorConfig) -> Version:
    """Return `version` with the options of `config` that may change without a training."""
    if version.config.missing == config.missing:
        return version
    return version.with_config(replace(version.config, missing=config.missing))
