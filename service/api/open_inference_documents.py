"""The types of the answers of the Open Inference Protocol. See `documents`."""

from typing import Annotated, Literal

import msgspec

Parameter = bool | int | float | str


class InferenceError(msgspec.Struct):
    """An error in the form of the Open Inference Protocol."""

    error: str


class InferenceInput(msgspec.Struct):
    """The input tensor `vectors`, with its numbers in `data` or in bytes after the document."""

    name: Literal["vectors"]
    shape: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]
    datatype: str
    data: list[float | list[float | None] | None] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class WantedOutput(msgspec.Struct):
    """An output tensor that the answer shall have."""

    name: Literal["score", "p_value", "severity", "is_anomaly"]
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class InferenceRequest(msgspec.Struct):
    """A request for scores. Without `outputs` the answer has all output tensors."""

    inputs: Annotated[list[InferenceInput], msgspec.Meta(min_length=1, max_length=1)]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET
    outputs: list[WantedOutput] | msgspec.UnsetType = msgspec.UNSET


class IndexRequest(msgspec.Struct):
    """With `ready`, only models that have a champion are listed."""

    ready: bool | msgspec.UnsetType = msgspec.UNSET


class InferenceServer(msgspec.Struct):
    """The metadata of a server: its name, version and protocol extensions."""

    name: str
    version: str
    extensions: list[str]


class InferenceReady(msgspec.Struct):
    """Whether the process is alive, or whether the process or a model is ready."""

    live: bool | msgspec.UnsetType = msgspec.UNSET
    ready: bool | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class Tensor(msgspec.Struct):
    """A tensor. It has `data` in a JSON answer, but not in metadata nor in a binary answer."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | bool] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class InferenceModel(msgspec.Struct):
    """A detector as a model: its versions, its input tensors and its output tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferenceAnswer(msgspec.Struct):
    """The output tensors. Each has one number for each row."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class IndexedModel(msgspec.Struct):
    """A detector in the repository's index."""

    name: str
    state: Literal["READY", "UNAVAILABLE"]
    version: str | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
