"""The parts of the OpenAPI document that FastAPI cannot see: raw bodies, problems, examples."""

from collections.abc import Mapping
from typing import Any

from service.problems import CONTENT_TYPE
from service.scoring import vectors as payload

Responses = dict[int | str, dict[str, Any]]

PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. Rows and columns count from zero. The payload is never repeated.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "row": {"type": "integer", "minimum": 0},
        "column": {"type": "integer", "minimum": 0},
    },
}

_MEANINGS: dict[int, tuple[str, str, str]] = {
    400: ("bad-request", "Bad request", "Idempotency-Key: 1 to 255 visible ASCII characters."),
    401: ("unauthenticated", "Unauthenticated", "This needs an API key."),
    403: ("forbidden", "Forbidden", "This needs a key with the scope read."),
    404: ("unknown-detector", "Unknown detector", "There is no such detector."),
    409: ("conflict", "Conflict", "12 vectors are buffered; a training needs 32."),
    410: ("gone", "Gone", "The version was pruned: its artifact is no longer kept."),
    412: ("precondition-failed", "Precondition failed", "The generation is 5 by now."),
    413: ("too-large", "Body too large", "A body has at most 33554432 bytes."),
    415: (
        "unsupported-media-type",
        "Unsupported media type",
        f"This release reads {', '.join(payload.BUILT)}.",
    ),
    422: ("bad-vectors", "Bad vectors", "Not a finite number."),
    429: ("buffer-full", "Buffer full", "The buffer holds 1000000 vectors and 0 parked ones."),
    503: ("store-unavailable", "Store unavailable", "The store does not answer."),
}

_VECTORS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["vectors"],
    "additionalProperties": False,
    "properties": {
        "vectors": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
            "description": "n rows of d finite numbers within float32.",
        }
    },
}


def problems(*statuses: int) -> Responses:
    """Return the documentation of the problems that a route answers with."""
    found: Responses = {}
    for status in statuses:
        slug, title, detail = _MEANINGS[status]
        example: dict[str, Any] = {
            "type": f"/problems/{slug}",
            "title": title,
            "status": status,
            "detail": detail,
        }
        if slug == "bad-vectors":
            example |= {"row": 1, "column": 0}
        found[status] = {
            "description": title,
            "content": {CONTENT_TYPE: {"schema": PROBLEM, "example": example}},
        }
        if status in {401, 403}:
            found[status]["headers"] = {
                "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}
            }
        if status in {429, 503}:
            found[status]["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
    return found


def answers(status: int, description: str, example: Any, **more: Any) -> Responses:
    """Return the documentation of a JSON answer by example."""
    schema = {"type": "array" if isinstance(example, list) else "object"}
    content = {"application/json": {"schema": schema, "example": example}}
    return {status: {"description": description, "content": content, **more}}


def json_body(example: Any, schema: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the documentation of a JSON request body."""
    content = {"schema": dict(schema or {"type": "object"}), "example": example}
    return {"requestBody": {"content": {"application/json": content}, **more}}


def vectors_body() -> dict[str, Any]:
    """Return the documentation of a matrix in any of the built content types."""
    binary = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "content": {
                payload.JSON: {
                    "schema": _VECTORS_SCHEMA,
                    "example": {"vectors": [[0.2, 1.5, 3.1], [0.1, 1.4, 9.9]]},
                },
                payload.OCTETS: {
                    "schema": binary | {"description": "Little-endian float32, row-major."}
                },
                payload.NPY: {"schema": binary | {"description": "What numpy.save writes."}},
            },
        }
    }


def query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    """Return the documentation of an optional query parameter."""
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "integer", "minimum": 1, **schema},
    }


def header(name: str, description: str, example: str) -> dict[str, Any]:
    """Return the documentation of an optional request header."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


def without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the validation errors that FastAPI adds and no route gives."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document
