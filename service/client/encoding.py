"""Writes the paths, the queries and the bodies of requests."""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from service.client.errors import Unusable

SentRows = np.ndarray | Sequence[Sequence[float]] | Sequence[Mapping[str, object]]
"""Rows as a matrix (n, d), or as records: by the names of the detector's columns."""


def path(name: str, *rest: object) -> str:
    """Return the path of a detector, or of the resource `rest` of the detector."""
    return "/".join(("/v1/detectors", *map(segment, (name, *rest))))


def template_path(name: str) -> str:
    """Return the path of a template."""
    return f"/v1/templates/{segment(name)}"


def segment(part: object) -> str:
    """Return a name, an id or a number as a segment of a path. Raises Unusable.

    A path without the segment, or with `..`, would name another resource: the path of a label with
    the id `..` would be the path of its detector.
    """
    text = str(part)
    if text in ("", ".", ".."):
        raise Unusable(f"{text!r} is neither a name nor an id")
    return quote(text, safe="")


def present(**values: Any) -> dict[str, Any]:
    """Return the `values` that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def page(limit: int | None, after: str | int | None) -> dict[str, Any]:
    """Return the query of a request for a page of a list."""
    return {"params": present(limit=limit, after=after)}


def only_if(generation: int | None = None, *, new: bool = False) -> dict[str, str]:
    """Return the headers that let a change fail with 412 if its condition does not hold.

    With `generation`, the condition is that this generation is the current one; with `new`, that
    no detector has the name.
    """
    tag = None if generation is None else f'"{generation}"'
    return present(**{"if-match": tag, "if-none-match": "*" if new else None})


def npy(vectors: Any) -> dict[str, Any]:
    """Return the body and the headers of a request that sends a matrix as float32 npy."""
    body = io.BytesIO()
    np.save(body, _float32(vectors), allow_pickle=False)
    return {"content": body.getvalue(), "headers": {"content-type": "application/x-npy"}}


def body_of(vectors: SentRows, fields: Mapping[str, object]) -> dict[str, Any]:
    """Return the body and the headers of a request that sends rows and further fields.

    A matrix without further `fields` is sent as npy, everything else as JSON.
    """
    rows = vectors if hasattr(vectors, "__array__") else list(vectors)
    if isinstance(rows, list) and rows and isinstance(rows[0], Mapping):
        document = {"records": rows, **fields}
    elif not fields:
        return npy(rows)
    else:
        X = _float32(rows)
        if np.isinf(X).any():
            raise Unusable("a number is infinite, or beyond float32; JSON cannot carry it")
        document = {"vectors": X, **fields}
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)  # NaN becomes null
    return {"content": body, "headers": {"content-type": "application/json"}}


def _float32(rows: Any) -> np.ndarray:
    """Return rows as float32. A number beyond float32 becomes infinite: the service refuses it."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype="<f4")
