"""The types of the answers of the Open Inference Protocol. See `documents`."""

from typing import Literal

import msgspec

Parameter = bool | int | float | str


class InferenceError(msgspec.Struct):
    """An error in the form of the Open Inference Protocol."""

    error: str


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
