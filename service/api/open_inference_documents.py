"""What answers of the Open Inference Protocol look like; see `documents`."""

from typing import Literal

import msgspec

Parameter = bool | int | float | str


class InferenceError(msgspec.Struct):
    """What is wrong, as the Open Inference Protocol says it."""

    error: str


class InferenceServer(msgspec.Struct):
    """What a server of the Open Inference Protocol is."""

    name: str
    version: str
    extensions: list[str]


class InferenceReady(msgspec.Struct):
    """Whether a process lives, or it or a model can serve."""

    live: bool | msgspec.UnsetType = msgspec.UNSET
    ready: bool | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class Tensor(msgspec.Struct):
    """A tensor: with `data` in an answer, without in metadata or in binary."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | bool] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] | msgspec.UnsetType = msgspec.UNSET


class InferenceModel(msgspec.Struct):
    """A detector as a model: its versions, and the tensors that it takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class InferenceAnswer(msgspec.Struct):
    """The output tensors, each with one number a row."""

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
