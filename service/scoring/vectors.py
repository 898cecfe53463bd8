"""Reads the body of a request as a matrix, or says why the body is not one.

`matrix` returns a float32 matrix (n, d) in C order, with n >= 1, or raises BadVectors. BadVectors
names the row and the column, both counted from zero. No reader unpickles anything. No error
repeats the data that the client sent.
"""

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
from numpy.lib import format as npy

from models.arrays import Array
from models.columns import MAX_DIMENSION
from service.problems import BadVectors, UnsupportedMedia
from service.scoring import json_vectors
from service.scoring.pieces import check_rows

JSON = "application/json"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"
NDJSON = "application/x-ndjson"  # this type and the next two name their columns
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
MEDIA_TYPES = (JSON, OCTETS, NPY, NDJSON, CSV, ARROW)

_FEW = 4096  # bytes of JSON up to which a list of Python floats is fast enough


def essence(content_type: str | None) -> str:
    """Return the media type in a Content-Type header in lower case, without its parameters."""
    return (content_type or "").partition(";")[0].strip().lower()


def media_type(content_type: str | None) -> str:
    """Return the media type that a Content-Type header names.

    Raises UnsupportedMedia for a type that no reader takes, and for a missing header. A missing
    header is an error for safety: a page of another web origin can send a body without a type,
    or with one of a few plain types, and the browser sends no preflight request before it.
    """
    if content_type == JSON:
        return JSON
    kind = essence(content_type)
    if kind in MEDIA_TYPES:
        return kind
    raise UnsupportedMedia(
        f"This release reads {', '.join(MEDIA_TYPES)}.", supported=list(MEDIA_TYPES)
    )


def matrix(kind: str, body: bytes, dimension: int | None, *, gaps: bool = False) -> Array:
    """Return the matrix in a `body` of media type `kind`. Raises BadVectors.

    `dimension` is that of the detector, or None while the detector has no dimension; an
    octet-stream needs it. With `gaps` a value may be missing: null in JSON, NaN in the other
    types. A missing value is NaN in the matrix.
    """
    if kind == JSON:
        X = json_vectors.read(body, dimension, gaps=gaps)
    elif kind == OCTETS:
        X = _read_octets(body, dimension)
    else:
        X = _read_npy(body)
    return check(X, dimension, gaps=gaps)


def packed(content_type: str | None, body: bytes, dimension: int) -> bytes | None:
    """Return the rows of a valid body as little-endian float32, one after the other.

    This is the fast path. It returns None for a body that it does not take, valid or not: the
    caller then calls `matrix`, which reads the body or raises the error.
    """
    if content_type == OCTETS:
        whole = body and not len(body) % (4 * dimension)
        return body if whole and np.isfinite(np.frombuffer(body, "<f4")).all() else None
    if content_type != JSON:
        return None
    if len(body) > _FEW and json_vectors.QUICK:
        X = json_vectors.quick(body, dimension, whole=True)
        return X.tobytes() if X is not None and np.isfinite(X).all() else None
    rows = json_vectors.rows(body)
    try:
        # `pack` raises for a row of another length, and for a number out of range of float32.
        pack = _packer(dimension)
        return (b"".join([pack(*row) for row in rows]) or None) if rows else None
    except (struct.error, OverflowError):
        return None


@functools.lru_cache(maxsize=64)
def _packer(dimension: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{dimension}f").pack


def check(X: Array, dimension: int | None, *, gaps: bool = False) -> Array:
    """Return `X` (n, d) unchanged if it is valid. Raises BadVectors or TooLarge if not.

    `X` is valid if it has rows, the dimension of the detector, and only finite numbers. With
    `gaps` a row may also hold NaN, but at least one value of the row must be a number.
    """
    n, d = X.shape
    if n == 0:
        raise BadVectors("There are no vectors.")
    if d == 0:
        raise BadVectors("The vector is empty.", row=0, column=0)
    check_rows(n)
    if dimension is not None and d != dimension:
        # The error names the first column that is missing, or the first column that is too many.
        text = f"The vector has {d} numbers; the detector takes {dimension}."
        raise BadVectors(text, row=0, column=min(d, dimension))
    if d > MAX_DIMENSION:
        text = f"A vector has at most {MAX_DIMENSION} numbers."
        raise BadVectors(text, row=0, column=MAX_DIMENSION)
    valid = np.isfinite(X)
    if gaps and not valid.all():
        if not (observed := valid.any(axis=1)).all():
            raise BadVectors("Every value of the vector is missing.", row=int(observed.argmin()))
        valid |= np.isnan(X)
    if not valid.all():
        row, column = divmod(int(np.argmin(valid)), d)
        raise BadVectors("The value is not a finite float32 number.", row=row, column=column)
    return X


def _read_octets(body: bytes, dimension: int | None) -> Array:
    if dimension is None:
        raise BadVectors(
            "An octet-stream does not state the dimension, and the detector has none yet: set "
            "`dimension` in its config, or send the first batch as JSON or npy."
        )
    if len(body) % (4 * dimension):
        raise BadVectors(
            f"{len(body)} bytes are not a whole number of vectors of {dimension} float32 "
            f"({4 * dimension} bytes each).",
            row=len(body) // (4 * dimension),
            column=len(body) % (4 * dimension) // 4,
        )
    X = np.frombuffer(body, "<f4").reshape(-1, dimension)
    return X.astype(np.float32, copy=False)


def _read_npy(body: bytes) -> Array:
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream, max_header_size=4096)
    except Exception:  # noqa: BLE001 - numpy parses the header as Python: any error may come of it
        raise BadVectors("The body is not an npy file of format 1.0 or 2.0.") from None
    if dtype.kind not in "fiu":
        raise BadVectors("The npy file does not hold numbers.")
    if len(shape) != 2 or min(shape) < 0:
        raise BadVectors("The npy file does not hold a matrix (two dimensions).")
    n, d = shape
    left = len(body) - stream.tell()
    if n * d * dtype.itemsize != left:
        raise BadVectors(
            f"The npy file's header asks for {n * d * dtype.itemsize} bytes; {left} follow."
        )
    if n * d == 0:
        return np.empty((n, d), np.float32)
    X = np.frombuffer(body, dtype, offset=stream.tell()).reshape(
        (n, d), order="F" if fortran else "C"
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(X, np.float32)
