"""Configs, as types. `make docs` writes this from OpenAPI."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Column(TypedDict):
    """One column of a client's rows: a `number`, a `flag` (0 or 1) or a `category` (a word)."""

    name: str
    type: NotRequired[str]
    values: NotRequired[list[str] | None]


class Context(TypedDict):
    """Which features are derived, and from how many earlier rows."""

    over: NotRequired[int]
    every: NotRequired[str | None]
    fill: NotRequired[str]
    derive: NotRequired[list[str]]
    timezone: NotRequired[str]


class DetectorConfig(TypedDict):
    """The config in the body of `PUT /v1/detectors/{name}`, with its defaults."""

    dimension: NotRequired[int | None]
    features: NotRequired[list[str] | None]
    columns: NotRequired[list[Column] | None]
    context: NotRequired[Context | Literal["auto"] | None]
    kind: NotRequired[str]
    strategy: NotRequired[str]
    weights: NotRequired[str | dict[str, float]]
    replay: NotRequired[Replay]
    score: NotRequired[str]
    threshold: NotRequired[dict[str, float | dict[str, float]]]
    missing: NotRequired[str]
    model: NotRequired[Literal["auto"] | Model]
    seed: NotRequired[int]
    shape: NotRequired[list[Any] | None]
    gate: NotRequired[Literal["enforce", "report"]]
    admission: NotRequired[Literal["quarantine", "triage", "hold_novel", "accept"]]
    release_after_seconds: NotRequired[float | None]
    retrain: NotRequired[Retrain]
    keep_learned_seconds: NotRequired[float]
    incident: NotRequired[IncidentConfig | None]
    off: NotRequired[Off | None]
    ignore: NotRequired[list[Ignore] | None]


class Ignore(TypedDict):
    """Deviations of `column` from its expected value that do not count."""

    column: str
    above: NotRequired[float | None]
    below: NotRequired[float | None]


class IncidentConfig(TypedDict):
    """How often normals may open an incident, and after how long without an alarm one closes."""

    false_per_day: NotRequired[float]
    close_after_seconds: NotRequired[float]


class Model(TypedDict):
    """The network, its training and the data that it keeps."""

    latent: NotRequired[int | None]
    hidden: NotRequired[list[int] | None]
    likelihood: NotRequired[str]
    epochs: NotRequired[int | None]
    learning_rate: NotRequired[float | None]
    batch_size: NotRequired[int | None]
    dropout: NotRequired[float]
    regime: NotRequired[str]
    exemplars: NotRequired[int | None]
    choice: NotRequired[str]
    targets: NotRequired[str]


Off = TypedDict("Off", {"column": str, "in": list[bool | float | str]})


class Replay(TypedDict):
    """How vectors are drawn from the previous version's generator."""

    latents: NotRequired[str]
    decode: NotRequired[str]


class Retrain(TypedDict):
    """What starts a retraining without a request: a count, an age, or drift."""

    min_vectors: NotRequired[int | None]
    max_age_seconds: NotRequired[float | None]
    on_drift: NotRequired[bool]
    paused: NotRequired[bool]
    shadow: NotRequired[Shadow | None]


class Shadow(TypedDict):
    """How many live vectors a candidate is compared on, and how long the worker waits for them."""

    vectors: int
    seconds: NotRequired[float]
