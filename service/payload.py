"""A request body to the matrix that it stands for, or the reason why it is none.

Every reader returns a float32 matrix (n, d), C order, finite, n >= 1, or raises BadVectors naming
row and column, counted from zero. Nothing is ever unpickled, and nothing sent is repeated.
"""

import functools
import io
import re
import struct
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from service.problems import BadVectors, TooLarge, UnsupportedMedia

Matrix = npt.NDArray[np.float32]

JSON = "application/json"
OCTETS = "application/octet-stream"
NPY = "application/x-npy"
BUILT = (JSON, OCTETS, NPY)

MAX_DIMENSION = 65_536  # as the detector config has it
MAX_ROWS = 2**20  # in one request: its JSON answer then has about 60 MB
RESERVED = ("sources", "timestamps", "records")

# Decoding holds the interpreter: larger JSON is read in pieces of this size, so that other
# threads get their turn (2 ms apiece) and the boxed numbers of one piece exist at a time.
PIECE = 256 * 1024


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    vectors: list[list[float]]


_body = msgspec.json.Decoder(_Body)
_rows = msgspec.json.Decoder(list[list[float]])

_OPENING = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"vectors"[ \t\r\n]*:[ \t\r\n]*\[')
_ROW_END = re.compile(rb"\][ \t\r\n]*,[ \t\r\n]*(?=\[)")
_ALIEN = re.compile(rb"[^0-9eE+\-., \t\r\n\[\]]")
_BYTE = re.compile(r"\(byte (\d+)\)")
_PATH = re.compile(r"at `\$(?:\.vectors)?(?:\[(\d+)\])?(?:\[(\d+)\])?")
_GOT = re.compile(r"got `(\w+)`")


def media_type(content_type: str | None) -> str:
    """Return which of the built types a Content-Type header names; none given means JSON.

    Raises UnsupportedMedia listing the built ones.
    """
    if content_type is None or content_type == JSON:
        return JSON
    essence = content_type.partition(";")[0].strip().lower()
    if essence in BUILT:
        return essence
    raise UnsupportedMedia(f"This release reads {', '.join(BUILT)}.", supported=list(BUILT))


def matrix(kind: str, body: bytes, dimension: int | None) -> Matrix:
    """Return the matrix that `body`, of media type `kind`, stands for.

    `dimension` is the detector's, None where it has none yet; octet-stream needs it.
    """
    if kind == JSON:
        X = _read_json(body, dimension)
    elif kind == OCTETS:
        X = _read_octets(body, dimension)
    else:
        X = _read_npy(body)
    return check(X, dimension)


def packed(content_type: str | None, body: bytes, dimension: int) -> bytes | None:
    """Return the rows of a small, right body as little-endian float32, one after the other.

    None for everything else, right or wrong: `matrix` then reads it, or says what is wrong.
    """
    if content_type == OCTETS:
        whole = body and not len(body) % (4 * dimension)
        return body if whole and np.isfinite(np.frombuffer(body, "<f4")).all() else None
    if (content_type != JSON and content_type is not None) or len(body) > PIECE:
        return None
    try:
        rows = _body.decode(body).vectors
        # Refuses rows of another length, and numbers beyond float32.
        pack = _packer(dimension)
        once = body.count(b'"') == 2  # else `vectors` is given twice
        return (b"".join([pack(*row) for row in rows]) or None) if once else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, struct.error, OverflowError):
        return None


@functools.lru_cache(maxsize=64)
def _packer(dimension: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{dimension}f").pack


def check(X: Matrix, dimension: int | None) -> Matrix:
    """Return `X` (n, d) when it has rows, the detector's dimension, and only finite numbers."""
    n, d = X.shape
    if n == 0:
        raise BadVectors("There are no vectors.")
    if d == 0:
        raise BadVectors("The vector is empty.", row=0, column=0)
    if n > MAX_ROWS:
        raise TooLarge(f"At most {MAX_ROWS} vectors in one request.")
    if dimension is not None and d != dimension:
        # The column is the first that is missing, or the first too many.
        text = f"The vector has {d} numbers; the detector takes {dimension}."
        raise BadVectors(text, row=0, column=min(d, dimension))
    if d > MAX_DIMENSION:
        text = f"A vector has at most {MAX_DIMENSION} numbers."
        raise BadVectors(text, row=0, column=MAX_DIMENSION)
    if not np.isfinite(X).all():
        row, column = divmod(int(np.argmin(np.isfinite(X))), d)
        raise BadVectors("Not a finite float32 number.", row=row, column=column)
    return X


def _read_json(body: bytes, dimension: int | None) -> Matrix:
    if len(body) > PIECE:
        blocks: list[Matrix] = []
        for rows, base in _pieces(body):
            width = dimension or (blocks[0].shape[1] if blocks else None)
            blocks.append(_stack(rows, base, width))
        return np.concatenate(blocks)
    try:
        decoded = _body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _locate(error, body, 0) from None
    _check_once(body)
    return _stack(decoded.vectors, 0, dimension)


def _check_once(body: bytes) -> None:
    # A decoded body holds no string but the name of its field: two quotes mean one field.
    if body.count(b'"') != 2:
        raise BadVectors("`vectors` is given more than once.")


def _pieces(body: bytes) -> Iterator[tuple[list[list[float]], int]]:
    """Yield runs of rows of a large JSON body, each with the number of its first row."""
    opening = _OPENING.match(body)
    start, base = (opening.end(), 0) if opening else (0, 0)
    head = b'{"vectors":['
    while opening and (cut := _ROW_END.search(body, start + PIECE)):
        piece = b"[" + body[start : cut.start() + 1] + b"]"
        try:
            rows = _rows.decode(piece)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _locate(error, piece, base) from None
        yield rows, base
        base += len(rows)
        start = cut.end()
    last = head + body[start:] if opening else body
    try:
        rows = _body.decode(last).vectors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _locate(error, last, base) from None
    _check_once(last)
    yield rows, base


def _stack(rows: list[list[float]], base: int, dimension: int | None) -> Matrix:
    """Return `rows` as a matrix; the first of them is row `base` of the request."""
    if not rows:
        return np.empty((0, dimension or 0), np.float32)
    try:
        # What is beyond float32 becomes infinite here and is located by `check`.
        with np.errstate(over="ignore"):
            X = np.array(rows, np.float32)
    except ValueError:
        X = None
    width = dimension or len(rows[0])
    if X is not None and X.ndim == 2 and X.shape[1] == width:
        return X
    for row, values in enumerate(rows, base):
        if len(values) != width:
            wanted = "the detector takes" if dimension else "the vectors before it have"
            text = f"The vector has {len(values)} numbers; {wanted} {width}."
            column = min(len(values), width)
            raise BadVectors(text if values else "The vector is empty.", row=row, column=column)
    raise BadVectors("The vector is empty.", row=base, column=0)


def _locate(error: Exception, body: bytes, base: int) -> BadVectors:  # noqa: PLR0911 - a table
    """Return the problem that a decoder's `error` over `body` means, with row and column."""
    text = str(error)
    if isinstance(error, RecursionError):
        return BadVectors("The JSON is nested too deeply.")
    if text.startswith("Object contains unknown field"):
        reserved = next((name for name in RESERVED if f"`{name}`" in text), None)
        if reserved:
            return BadVectors(f"`{reserved}` is reserved for a later release.")
        return BadVectors("Unknown field; `vectors` is the only one.")
    if "missing required field" in text:
        return BadVectors("There are no vectors: `vectors` is missing.")
    if isinstance(error, msgspec.ValidationError):
        return _mistyped(text, base)
    if not body.strip():
        return BadVectors("The body is empty.")
    opening = _OPENING.match(body)
    begin = opening.end() if opening else 1 if body.startswith(b"[") else None
    if begin is None:
        return BadVectors('The body is not JSON of the form {"vectors": [[...], ...]}.')
    # Up to the first foreign character the text is brackets, commas and numbers alone: counting
    # them gives its place.
    alien = _ALIEN.search(body, begin)
    said = _BYTE.search(text)
    stops = [int(said[1])] if said else []
    if alien and (not said or alien.start() <= int(said[1])):
        stops.append(alien.start())
    if not stops:
        return BadVectors("The JSON ends before it is complete.")
    row, column = _place(body[begin : min(stops)])
    what = "Not a finite number." if column is not None else "The JSON is malformed."
    return BadVectors(what, row=None if row is None else row + base, column=column)


def _mistyped(text: str, base: int) -> BadVectors:
    """Return the problem for well-formed JSON of another shape than a matrix of numbers."""
    path, got = _PATH.search(text), _GOT.search(text)
    if path is None or path[1] is None:
        return BadVectors('The body is not of the form {"vectors": [[...], ...]}.')
    row = int(path[1]) + base
    if path[2] is None:
        return BadVectors("A vector is a list of numbers.", row=row)
    column = int(path[2])
    if got is None:
        return BadVectors("Not a finite float32 number.", row=row, column=column)
    return BadVectors(f"Not a number but of JSON type {got[1]}.", row=row, column=column)


def _place(before: bytes) -> tuple[int | None, int | None]:
    """Return row and column of what follows `before`, the text after the matrix's opening."""
    opened = before.rfind(b"[")
    row = before.count(b"[") - 1
    if opened > before.rfind(b"]"):
        return row, before.count(b",", opened)
    return (row + 1, None) if before.count(b"[") == before.count(b"]") else (None, None)


def _read_octets(body: bytes, dimension: int | None) -> Matrix:
    if dimension is None:
        raise BadVectors(
            "octet-stream says no dimension, and the detector has none yet: set it in its config, "
            "or send the first batch as JSON or npy."
        )
    if len(body) % (4 * dimension):
        raise BadVectors(
            f"{len(body)} bytes are no whole number of vectors of {dimension} float32 "
            f"({4 * dimension} bytes each).",
            row=len(body) // (4 * dimension),
            column=len(body) % (4 * dimension) // 4,
        )
    X = np.frombuffer(body, "<f4").reshape(-1, dimension)
    return X.astype(np.float32, copy=False)


def _read_npy(body: bytes) -> Matrix:
    stream = io.BytesIO(body)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream, max_header_size=4096)
    except Exception:  # noqa: BLE001 - numpy parses the header as Python: any error may come of it
        raise BadVectors("Not an npy file of format 1.0 or 2.0.") from None
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
