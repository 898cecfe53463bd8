"""Reads requests and writes replies of the Open Inference Protocol (KServe V2).

A detector is a model of the protocol, and a version is a model version. The only input tensor is
`vectors`, (n, d). Each of the four output tensors has one number for each row. A tensor is sent as
JSON, or as raw bytes after the JSON document. Raw bytes are the binary tensor extension, whose
header gives the length of the document.
https://github.com/kserve/open-inference-protocol
"""

import contextlib
import re
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from models.arrays import Array
from models.config import Config
from models.version.judgement import Judgement
from service.domain.champion import Champion
from service.json_value import JsonObject
from service.problems import BadRequest, TooLarge
from service.scoring import json_vectors, vectors
from service.scoring.answers import Reply
from service.scoring.vectors import JSON, OCTETS

HEADER_LENGTH = "Inference-Header-Content-Length"
INPUT = "vectors"
OUTPUTS = {"score": "FP64", "p_value": "FP64", "severity": "FP64", "is_anomaly": "BOOL"}
EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "anamnesis"

# The data types that an input tensor may have, and their little-endian numpy types.
_NUMBERS = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip

_SHAPE_BYTES = 256  # the longest text of a shape; a list as long as a body would block the process
_TENSORS = 16  # the most tensors; a million would block the process for too long
_QUOTES = 4096  # the most quotes: numbers have none, and names and parameters need some dozens
_ONE = f"Send exactly one input tensor, `{INPUT}`."
_NOT_JSON = re.compile(rb"[\[,:]\s*-?(?:NaN|Infinity)")
_AROUND = 16  # bytes around a NaN that are searched: a whole body would block for seconds
_NESTED = re.compile(rb"\s*\[\s*\[")
_FLAT_BYTES = 2**22  # decoding holds the interpreter lock for up to 10 ms a MiB

Parameters = dict[str, bool | int | float | str]


class _Input(msgspec.Struct):
    name: str
    shape: msgspec.Raw  # read after its length is known
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[_Output] | None = None


_request = msgspec.json.Decoder(_Request)
_shape = msgspec.json.Decoder(list[int])
_numbers = msgspec.json.Decoder(list[float])
_gappy = msgspec.json.Decoder(list[float | None])


class Inference(NamedTuple):
    """A valid request: its rows X (n, d), and for each wanted output whether it is binary."""

    X: Array
    id: str | None
    outputs: dict[str, bool]


def why_no_tensors(config: Config) -> str | None:
    """Return why a detector with this config takes no tensors, None if it takes them."""
    if config.words:
        return "A detector with a category takes its rows by name, at /v1."
    if config.derived_by is not None:
        return "A detector with a context needs earlier rows too: send them to /v1."
    return None


def parse(body: bytes, header_length: str | None, champion: Champion) -> Inference:
    """Return the inference request in the body. Raises Problem if it does not fit `champion`.

    `header_length` is the header of the binary tensor extension, or None if the body is only JSON.
    """
    document, binary = _split_binary(body, header_length)
    if document.count(b'"datatype"') > _TENSORS:
        raise BadRequest(_ONE)
    if document.count(b'"') > _QUOTES:
        raise BadRequest(f"An inference request has at most {_QUOTES // 2} names and words.")
    try:
        request = _request.decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if _has_nan(document):
            raise BadRequest(
                "JSON has no NaN and no Infinity: send the tensor in binary."
            ) from None
        raise BadRequest(
            "An inference request is JSON with `inputs`; each has name, shape, datatype and data."
        ) from None
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        raise BadRequest(_ONE)
    X = _input_matrix(request.inputs[0], binary, champion)
    return Inference(X, request.id, _wanted_outputs(request))


def reply(champion: Champion, inference: Inference, judgement: Judgement) -> Reply:
    """Return the response: JSON, followed by the binary outputs if there are any."""
    columns = dict(zip(OUTPUTS, judgement, strict=True))
    outputs: list[JsonObject] = []
    blobs: list[bytes] = []
    for name, binary in inference.outputs.items():
        column = columns[name]
        output: JsonObject = {"name": name, "datatype": OUTPUTS[name], "shape": [len(column)]}
        if binary:
            blobs.append(column.astype(bool if OUTPUTS[name] == "BOOL" else "<f8").tobytes())
            outputs.append(output | {"parameters": {"binary_data_size": len(blobs[-1])}})
        else:
            outputs.append(output | {"data": column.tolist()})
    document: JsonObject = {
        "model_name": champion.name,
        "model_version": str(champion.number),
        "parameters": {
            "threshold": champion.threshold.value,
            "calibration": champion.threshold.calibration,
            "generation": champion.generation,
            "config_revision": champion.config_revision,
        },
        "outputs": outputs,
    }
    if inference.id is not None:
        document["id"] = inference.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return Reply(200, JSON, head)
    return Reply(200, OCTETS, b"".join((head, *blobs)), ((HEADER_LENGTH, str(len(head))),))


def metadata(name: str, versions: list[int], dimension: int) -> JsonObject:
    """Return the metadata of a model with `dimension` features."""
    outputs: list[JsonObject] = [
        {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in OUTPUTS.items()
    ]
    return {
        "name": name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, dimension]}],
        "outputs": outputs,
    }


def _has_nan(document: bytes) -> bool:
    """Return whether the first NaN or Infinity in the document stands where a number may stand."""
    found = (document.find(word) for word in (b"NaN", b"Infinity"))
    return any(
        _NOT_JSON.search(document, max(0, at - _AROUND), at + _AROUND) for at in found if at > 0
    )


def _split_binary(body: bytes, header_length: str | None) -> tuple[bytes, bytes | None]:
    """Return the JSON document of a body, and the bytes after it; None if all is JSON."""
    if header_length is None:
        return body, None
    text = header_length.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= len(body)):
        raise BadRequest(f"{HEADER_LENGTH} is not the length of a document in the body.")
    return body[: int(text)], body[int(text) :]


def _wanted_outputs(request: _Request) -> dict[str, bool]:
    """Return the names of the wanted outputs, each with True if it is wanted in binary."""
    binary = (request.parameters or {}).get("binary_data_output") is True
    if request.outputs is None:
        return dict.fromkeys(OUTPUTS, binary)
    if not request.outputs or not all(output.name in OUTPUTS for output in request.outputs):
        raise BadRequest(f"`outputs` must name one or more of {', '.join(OUTPUTS)}.")
    return {
        output.name: (output.parameters or {}).get("binary_data", binary) is True
        for output in request.outputs
    }


def _input_matrix(tensor: _Input, binary: bytes | None, champion: Champion) -> Array:
    """Return the rows of the input tensor as a matrix, checked as `vectors.matrix` does."""
    dtype = _NUMBERS.get(tensor.datatype)
    if dtype is None:
        raise BadRequest(f"The datatype of `{INPUT}` must be one of {', '.join(_NUMBERS)}.")
    n, d = _rows_and_features(bytes(tensor.shape))
    gaps = champion.version.config.missing == "impute"
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None:
        X = _from_bytes(size, binary, (n, d), np.dtype(dtype))
    else:
        if binary:
            raise BadRequest(f"Bytes follow the document, but `{INPUT}` has no binary_data_size.")
        X = _from_json(bytes(tensor.data), n, d, gaps)
    return vectors.check(X, champion.version.dimension, gaps=gaps)


def _rows_and_features(text: bytes) -> tuple[int, int]:
    """Return the two sizes of a shape in JSON."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        shape = _shape.decode(text) if len(text) <= _SHAPE_BYTES else []
        if len(shape) == 2 and all(0 <= size < 2**31 for size in shape):
            return shape[0], shape[1]
    raise BadRequest(f"The shape of `{INPUT}` must be [rows, features].")


def _from_bytes(
    size: bool | float | str, binary: bytes | None, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Array:
    n, d = shape
    if binary is None:
        raise BadRequest(f"A tensor in binary needs the header {HEADER_LENGTH}.")
    if size != len(binary) or len(binary) != n * d * dtype.itemsize:
        raise BadRequest(
            f"The shape and datatype of `{INPUT}` ask for {n * d * dtype.itemsize} bytes; "
            f"{len(binary)} follow the document."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(np.frombuffer(binary, dtype).reshape(n, d), np.float32)


def _from_json(text: bytes, n: int, d: int, gaps: bool) -> Array:
    """Return the rows of a tensor in JSON, nested or flat; with `gaps` null becomes NaN."""
    if _NESTED.match(text):
        # This reader names row and column in an error, and lets other threads run in between.
        X = json_vectors.read(b'{"vectors":%b}' % text, d, gaps=gaps)
    elif len(text) > _FLAT_BYTES:
        raise TooLarge(
            f"A flat tensor in JSON may have {_FLAT_BYTES} bytes: nest it by row, or send it "
            "in binary.",
            limit=_FLAT_BYTES,
        )
    else:
        X = _from_flat(text, n, d, gaps)
    if X.shape != (n, d):
        raise BadRequest(f"The shape asks for {n} rows of {d}; the data has {len(X)} rows.")
    return X


def _from_flat(text: bytes, n: int, d: int, gaps: bool) -> Array:
    try:
        numbers = np.array((_gappy if gaps else _numbers).decode(text), np.float64)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        raise BadRequest(f"The data of `{INPUT}` must be finite numbers, row by row.") from None
    if numbers.size != n * d:
        raise BadRequest(f"The shape asks for {n * d} numbers; the data has {numbers.size}.")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers.reshape(n, d), np.float32)
