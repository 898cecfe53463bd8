"""Parts of the OpenAPI document that FastAPI cannot derive: raw bodies, problems, examples."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import orjson
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from service.api import documents, incident_documents, open_inference_documents, request_bodies
from service.domain.detector_config import DetectorConfig
from service.json_value import JsonObject, JsonValue
from service.problems import (
    CONTENT_TYPE,
    NEEDS_KEY,
    BadRequest,
    BadVectors,
    BufferFull,
    Conflict,
    Forbidden,
    Gone,
    PreconditionFailed,
    Problem,
    StoreUnavailable,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    UnknownDetector,
    Unready,
    UnsupportedMedia,
)
from service.scoring import vectors

Responses = dict[int | str, JsonObject]

# An example of each type of an answer.
EXAMPLES: dict[str, JsonObject] = orjson.loads(
    Path(__file__).with_name("examples.json").read_bytes()
)
EXAMPLES["DetectorConfig"] = EXAMPLES["DetectorStatus"]["config"] = DetectorConfig().to_dict()

ANY_OBJECT: JsonObject = {"type": "object"}
BINARY: JsonObject = {"type": "string", "format": "binary"}
_REFERENCE = "#/components/schemas/"
_PROBLEM = {"$ref": f"{_REFERENCE}Problem"}

# The problems that routes answer, each with the detail of its example.
_DETAILS: dict[type[Problem], str] = {
    BadRequest: "Idempotency-Key must be 1 to 255 visible ASCII characters.",
    Unauthenticated: NEEDS_KEY,
    Forbidden: "This request needs an API key with the scope read.",
    UnknownDetector: UnknownDetector().detail,
    Conflict: "12 vectors are buffered; a training needs 32.",
    Gone: Gone().detail,
    PreconditionFailed: (
        "The generation is now 5. Read the detector again, then repeat the request."
    ),
    TooLarge: "A body may have at most 33554432 bytes.",
    UnsupportedMedia: f"This release reads {', '.join(vectors.MEDIA_TYPES)}.",
    BadVectors: "The value is not a finite number.",
    BufferFull: "The buffer holds 1000000 vectors and 0 parked ones.",
    TooManyRequests: "This key may send 10 requests a second.",
    Unready: Unready().detail,
    StoreUnavailable: StoreUnavailable().detail,
}
# The usual problem of each status is the last one in the list.
_USUAL = {kind.status: kind for kind in _DETAILS}


def problems(*statuses: int, instead: type[Problem] | None = None) -> Responses:
    """Return the documentation of the problems that a route can answer.

    `instead` replaces the usual problem of its status.
    """
    responses: Responses = {}
    for status in statuses:
        kind = instead if instead is not None and instead.status == status else _USUAL[status]
        example: JsonObject = {
            "type": f"/problems/{kind.slug}",
            "title": kind.title,
            "status": status,
            "detail": _DETAILS[kind],
        }
        if kind is BadVectors:
            example |= {"row": 1, "column": 0}
        responses[status] = {
            "description": kind.title,
            "content": {CONTENT_TYPE: {"schema": _PROBLEM, "example": example}},
        }
        if status in {401, 403}:
            responses[status]["headers"] = {
                "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}
            }
        if status in {429, 503}:
            responses[status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    return responses


def answers(
    status: int,
    description: str,
    kind: type,
    example: Any = None,
    others: Mapping[str, JsonValue] | None = None,
    **more: Any,
) -> Responses:
    """Return the documentation of a JSON answer of type `kind`, with an example.

    The example is that of the type unless another one is given. `others` documents the answer in
    other media types.
    """
    example, schema = example or example_of(kind), reference(kind)
    if isinstance(example, list):
        schema = {"type": "array", "items": schema}
    content = {"application/json": {"schema": schema, "example": example}, **(others or {})}
    return {status: {"description": description, "content": content, **more}}


def example_of(kind: Any) -> JsonObject:
    """Return the example of a type. Without its own, it is a list field with one example entry."""
    if kind.__name__ in EXAMPLES:
        return EXAMPLES[kind.__name__]
    entries = msgspec.structs.fields(kind)[0]
    return {entries.name: [example_of(get_args(entries.type)[0])]}


def reference(kind: type) -> JsonObject:
    """Return the reference to the component schema of a document's type."""
    return {"$ref": f"{_REFERENCE}{kind.__name__}"}


def components() -> JsonObject:
    """Return the component schemas of answers, problems and configs."""
    kinds = list(documents.ANSWERS)
    kinds += [
        kind
        for module in (documents, incident_documents, open_inference_documents, request_bodies)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind not in documents.ANSWERS
    ]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REFERENCE + "{name}")
    for kind in _with_parts(kinds):
        schema = schemas[kind.__name__]
        schema["description"] = inspect.cleandoc(kind.__doc__ or "")
        schema["required"] = _required_fields(kind)
        for name in schema["required"]:
            schema["properties"][name].pop("default", None)
        if not _is_request(kind):
            schema.pop("additionalProperties", None)  # a later release may add fields to an answer
    config = TypeAdapter(DetectorConfig).json_schema(
        mode="validation", ref_template=_REFERENCE + "{model}"
    )
    of_config = {**config.pop("$defs", {}), "DetectorConfig": config}
    # Configs and answers share the type Context.
    assert schemas.keys() & of_config.keys() <= {"Context"}, "two schemas have one name"
    return {**schemas, **of_config}


def _with_parts(kinds: Iterable[Any]) -> set[type[msgspec.Struct]]:
    """Return the document types among `kinds`, and the types of their nested documents."""
    parts: set[type[msgspec.Struct]] = set()
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        waiting += get_args(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in parts:
            parts.add(kind)
            waiting += [field.type for field in msgspec.structs.fields(kind)]
    return parts


def _required_fields(kind: type[msgspec.Struct]) -> list[str]:
    """Return the names of the fields that every document of this type has."""
    omitted = kind.__struct_config__.omit_defaults or _is_request(kind)
    return [
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.default is not msgspec.UNSET and (field.required or not omitted)
    ]


def _is_request(kind: type) -> bool:
    return kind.__module__ == request_bodies.__name__


def json_body(
    kind: type | None,
    example: Any,
    others: Mapping[str, JsonValue] | None = None,
    *,
    required: bool = True,
) -> JsonObject:
    """Return the documentation of a request body that is JSON of type `kind`, with an example.

    Without `kind` the body is any object. `others` has the body's schemas in other media types.
    """
    content: JsonObject = {
        vectors.JSON: {"schema": reference(kind) if kind else ANY_OBJECT, "example": example}
    }
    content |= {media: {"schema": schema} for media, schema in (others or {}).items()}
    body: JsonObject = {"content": content}
    return {"requestBody": body | {"required": True} if required else body}


_ROWS_BY_TYPE: JsonObject = {
    vectors.OCTETS: BINARY | {"description": "Little-endian float32, row-major."},
    vectors.NPY: BINARY | {"description": "What numpy.save writes."},
    vectors.NDJSON: {
        "type": "string",
        "description": 'A line for each row: `{"record": {...}, "timestamp", "source", "id"}`.',
    },
    vectors.CSV: {"type": "string", "description": "The first line has the column names."},
    vectors.ARROW: BINARY | {"description": "An Arrow IPC stream."},
}
_COLUMN_ROLES: dict[str, str] = {
    "time": "The column of a table (CSV, Arrow) that has the times.",
    "source": "The column of a table that has the sources.",
    "id": "The column of a table that has the client's ids.",
    "drop": "The columns of a table to leave out, with commas between them.",
}


def rows_body(kind: type, *parameters: JsonObject) -> JsonObject:
    """Return the documentation of a request with rows, and of its parameters.

    `kind` is the type of a JSON body. The body may be binary or a table too.
    """
    roles = [query(name, text, type="string") for name, text in _COLUMN_ROLES.items()]
    unknown = "With `drop`, names that are not columns of the detector are left out."
    extra = query("extra", unknown, type="string", enum=["drop"])
    body = json_body(kind, {"vectors": [[0.2, 1.5, 3.1], [0.1, 1.4, 9.9]]}, _ROWS_BY_TYPE)
    return {**body, "parameters": [*parameters, *roles, extra]}


def query(name: str, description: str, **schema: Any) -> JsonObject:
    """Return the documentation of an optional query parameter, from 1 or as in `schema`."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema if "type" in schema else {"type": "integer", "minimum": 1, **schema},
    }


def header(name: str, description: str, example: str) -> JsonObject:
    """Return the documentation of an optional request header."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


# Headers of a request that changes a detector only if it has the expected generation.
_IF_MATCH = header(
    "If-Match", "The expected generation, as its ETag. If it has changed, the answer is 412.", '"4"'
)
IF_MATCH: JsonObject = {"parameters": [_IF_MATCH]}
_IF_NONE_MATCH = header("If-None-Match", "With `*` the answer is 412 if the name exists.", "*")
IF_NONE_MATCH: JsonObject = {"parameters": [_IF_NONE_MATCH]}
IF_MATCH_OR_NONE: JsonObject = {"parameters": [_IF_MATCH, _IF_NONE_MATCH]}
ETAG = {"ETag": {"description": "The generation.", "schema": {"type": "string"}}}


def operation_id(route: APIRoute) -> str:
    """Return a short name for an operation: `list_detectors`, `score`, `v2_infer`."""
    noun = route.endpoint.__module__.rpartition(".")[2]
    if noun == "v2":
        return f"v2_{route.name}"
    verb = _VERBS.get(route.name)
    if verb is None:
        return route.name
    return f"{verb}_{noun}" if verb == "list" else f"{verb}_{noun.removesuffix('s')}"


_VERBS = {"index": "list", "get": "get", "put": "put", "post": "create", "delete": "delete"}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's document with our schemas, and without errors that no route answers."""
    answered = [
        (path, operation["responses"])
        for path, operations in document["paths"].items()
        for operation in operations.values()
    ]
    for path, responses in answered:
        if "application/json" in responses.get("422", {}).get("content", {}):
            del responses["422"]
        if path.startswith("/v2"):
            _in_protocol(responses)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= dict(sorted(components().items()))
    for response in (declared for _, responses in answered for declared in responses.values()):
        for content in response.get("content", {}).values():
            _restore_nulls(content.get("example"), content.get("schema", {}), schemas)
    return document


def _restore_nulls(example: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
    """Put the nulls back into an example: FastAPI drops the fields that are None."""
    schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    for element in example if isinstance(example, list) else ():
        _restore_nulls(element, schema.get("items", {}), schemas)
    if not isinstance(example, dict):
        return
    for name, property_schema in schema.get("properties", {}).items():
        if name in example:
            _restore_nulls(example[name], property_schema, schemas)
        elif name in schema.get("required", ()):
            example[name] = None


def _in_protocol(responses: dict[str, Any]) -> None:
    """Describe the problems in `responses` as errors of the Open Inference Protocol."""
    for response in responses.values():
        if CONTENT_TYPE in response.get("content", {}):
            example = {"error": response["content"][CONTENT_TYPE]["example"]["detail"]}
            schema = reference(open_inference_documents.InferenceError)
            response["content"] = {"application/json": {"schema": schema, "example": example}}
