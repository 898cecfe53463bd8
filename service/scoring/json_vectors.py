"""Reads a JSON body as a matrix, or names the row and the column of the error.

Two readers return the same matrix. simdjson reads valid text three times as fast as msgspec. If
simdjson does not take a text, msgspec reads the text again, and the error of msgspec is reported.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.arrays import Array
from models.columns import MAX_DIMENSION
from service.problems import BadVectors
from service.scoring.pieces import LONGEST, PIECE, check_length, check_rows
from service.scoring.text_encoding import foreign_encoding

try:
    import simdjson
except ImportError:  # simdjson has no wheel for this platform: msgspec reads everything
    simdjson = None  # type: ignore[assignment]

QUICK = simdjson is not None

# A piece has PIECE bytes and the rest of its last row. At most every second of the PIECE bytes is a
# comma. So a piece with more commas than this has a last row of more than MAX_DIMENSION numbers.
_MOST_COMMAS = PIECE // 2 + MAX_DIMENSION

# The most bytes that simdjson reads. A parser keeps up to ten bytes of memory for each.
_QUICK_BYTES = 2 * 2**20


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    vectors: list[list[float]]


class _RawBody(msgspec.Struct, forbid_unknown_fields=True):
    vectors: msgspec.Raw


class _GappyBody(msgspec.Struct, forbid_unknown_fields=True):
    vectors: list[list[float | None]]


_body = msgspec.json.Decoder(_Body)
_raw_body = msgspec.json.Decoder(_RawBody)
_gappy_body = msgspec.json.Decoder(_GappyBody)
_rows = msgspec.json.Decoder(list[list[float]])
_gappy_rows = msgspec.json.Decoder(list[list[float | None]])
_local = threading.local()  # one parser a thread: a parser reuses its memory and is not thread-safe

_FORM = 'The body is not of the form {"vectors": [[...], ...]}.'
_OPENING = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"vectors"[ \t\r\n]*:[ \t\r\n]*\[')
_ROW_END = re.compile(rb"\][ \t\r\n]*,[ \t\r\n]*(?=\[)")
_NOT_IN_ROWS = re.compile(rb"[^0-9eE+\-., \t\r\n\[\]]")
_NOT_IN_A_ROW = re.compile(rb"[^0-9eE+\-., \t\r\n\[\]nul]")  # null is a missing number
_BYTE = re.compile(r"\(byte (\d+)\)")
_PATH = re.compile(r"at `\$(?:\.vectors)?(?:\[(\d+)\])?(?:\[(\d+)\])?")
_GOT = re.compile(r"got `(\w+)`")


def read(body: bytes, dimension: int | None, *, gaps: bool = False) -> Array:
    """Return the rows (n, d) of `{"vectors": [[...], ...]}`. Raises BadVectors.

    A number out of range of float32 becomes infinite. `dimension` is None if every dimension is
    valid. With `gaps` null is allowed and becomes NaN.
    """
    blocks: list[Array] = []
    width, base = dimension, 0
    for text, whole in _pieces(body):
        _check_commas(text, base)
        check_length(text, base)
        block = quick(text, width, whole=whole)
        if block is None:
            block = _read_by_msgspec(text, whole, base, width, gaps)
        base += len(block)
        check_rows(base)
        width = width or block.shape[1]
        blocks.append(block)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def rows(body: bytes) -> list[list[float]] | None:
    """Return the rows of a small body, even of unequal lengths; None for an invalid body."""
    try:
        decoded = _body.decode(body).vectors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if _has_one_field(body) else None


def quick(text: bytes, width: int | None, *, whole: bool) -> Array | None:
    """Return the rows (n, width) of `text`, or None if msgspec must read the text.

    If `whole`, `text` is an object with `vectors`. If not, `text` is a list of rows.
    """
    if not QUICK or len(text) > _QUICK_BYTES or (whole and not _OPENING.match(text)):
        return None
    try:
        flat, widths = _parsed_numbers(text, whole)
    except (LookupError, RuntimeError, TypeError, ValueError):
        return None
    # simdjson flattens lists of any depth. A matrix has one list a row, and one around the rows.
    lists = np.count_nonzero(np.frombuffer(text, np.uint8) == ord("["))
    if len(set(widths)) != 1 or lists != len(widths) + 1 or len(flat) != len(widths) * widths[0]:
        return None
    if width is not None and widths[0] != width:
        return None
    with np.errstate(over="ignore"):
        return flat.astype(np.float32).reshape(len(widths), -1)


def _parsed_numbers(text: bytes, whole: bool) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Return all numbers of `text` in one array, and the lengths of the rows."""
    parser = getattr(_local, "parser", None)
    if parser is None:
        parser = _local.parser = simdjson.Parser()
    document: Any = parser.parse(text)
    if whole and len(document) != 1:
        raise ValueError
    rows = document["vectors"] if whole else document
    return np.frombuffer(rows.as_buffer(of_type="d")), [len(row) for row in rows]


def _pieces(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a body to decode, and whether a part is an object with `vectors`.

    A small body is one such object. A large body is cut into lists of rows; an object with the last
    rows ends it.
    """
    if len(body) <= PIECE:
        yield body, True
        return
    opening = _OPENING.match(body)
    if opening is None:
        body = _with_plain_name(body)
        opening = _OPENING.match(body)
    if opening is None:
        raise BadVectors(_FORM)
    start = opening.end()
    while cut := _row_end(body, start + PIECE):
        yield b"[" + body[start : cut.start() + 1] + b"]", False
        start = cut.end()
    yield b'{"vectors":[' + body[start:], True


def _row_end(body: bytes, start: int) -> re.Match[bytes] | None:
    """Return the first end of a row from `start` on. None if the row is longer than allowed."""
    for place in range(start, min(len(body), start + LONGEST), PIECE):
        # A search holds the lock, so it gets one block. Blocks overlap: an end may cross a border.
        if match := _ROW_END.search(body, place, place + 2 * PIECE):
            return match
    return None


def _with_plain_name(body: bytes) -> bytes:
    """Return a large body with its field's name written plainly.

    JSON may write the letters of a name as escapes.
    """
    try:
        return b'{"vectors":%b}' % bytes(_raw_body.decode(body).vectors)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _located_problem(error, body, 0) from None


def _check_commas(text: bytes, base: int) -> None:
    """Raise BadVectors if the last row of a long piece has more than MAX_DIMENSION numbers."""
    if text.count(b",") <= _MOST_COMMAS:
        return
    opening = _OPENING.match(text)
    commas = 0
    for start in range(opening.end() if opening else 0, len(text), PIECE):
        block = text[start : start + PIECE]
        other = _NOT_IN_A_ROW.search(block)
        commas += block.count(b",", 0, other.start() if other else len(block))
        if commas > _MOST_COMMAS:
            raise BadVectors(
                f"A vector has at most {MAX_DIMENSION} numbers.",
                row=base + max(text.count(b"[", 0, start) - 2, 0),
                column=MAX_DIMENSION,
            )
        if other:
            return


def _read_by_msgspec(text: bytes, whole: bool, base: int, width: int | None, gaps: bool) -> Array:
    rows: Sequence[Sequence[float | None]]
    try:
        if gaps:
            rows = _gappy_body.decode(text).vectors if whole else _gappy_rows.decode(text)
        else:
            rows = _body.decode(text).vectors if whole else _rows.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _located_problem(error, text, base) from None
    if whole and not _has_one_field(text):
        raise BadVectors("`vectors` is given more than once.")
    return _as_matrix(rows, base, width)


def _has_one_field(text: bytes) -> bool:
    # A valid body has no string except the name of its field, so two quotes mean one field.
    return text.count(b'"') == 2


def _as_matrix(rows: Sequence[Sequence[float | None]], base: int, dimension: int | None) -> Array:
    """Return `rows` as a matrix. `base` is the number of the first row in the request."""
    if not rows:
        return np.empty((0, dimension or 0), np.float32)
    try:
        # A number out of range of float32 becomes infinite here; `vectors.check` finds it.
        with np.errstate(over="ignore"):
            X = np.array(rows, np.float32)
    except ValueError:
        X = None
    width = dimension or len(rows[0])
    if X is not None and X.ndim == 2 and X.shape[1] == width:
        return X
    for row, values in enumerate(rows, base):
        if len(values) != width:
            whose = "the detector takes" if dimension else "the vectors before it have"
            text = f"The vector has {len(values)} numbers; {whose} {width}."
            column = min(len(values), width)
            raise BadVectors(text if values else "The vector is empty.", row=row, column=column)
    raise BadVectors("The vector is empty.", row=base, column=0)


def _located_problem(error: Exception, body: bytes, base: int) -> BadVectors:
    """Return the problem that a decoder's `error` about `body` means, with row and column."""
    if isinstance(error, msgspec.ValidationError):
        return _type_problem(str(error), base)
    if isinstance(error, RecursionError):
        return BadVectors("The JSON is nested too deeply.")
    if not body.strip():
        return BadVectors("The body is empty.")
    if (words := foreign_encoding(body)) is not None:
        return BadVectors(words)
    return _syntax_problem(str(error), body, base)


def _type_problem(text: str, base: int) -> BadVectors:
    """Return the problem for valid JSON that is not a matrix of numbers."""
    if text.startswith("Object contains unknown field"):
        return BadVectors(
            "Unknown field; the fields are vectors, records, timestamps, sources, ids, "
            "context_rows."
        )
    if "missing required field" in text:
        return BadVectors("There are no vectors: `vectors` is missing.")
    path, json_type = _PATH.search(text), _GOT.search(text)
    if path is None or path[1] is None:
        return BadVectors(_FORM)
    row = int(path[1]) + base
    if path[2] is None:
        return BadVectors("A vector is a list of numbers.", row=row)
    if json_type and json_type[1] == "null":
        words = "The value is null: fill it, or set `missing` to `impute` in the config."
        return BadVectors(words, row=row, column=int(path[2]))
    problem = (
        f"The value is not a number but has the JSON type {json_type[1]}."
        if json_type
        else "The value is not a finite float32 number."
    )
    return BadVectors(problem, row=row, column=int(path[2]))


def _syntax_problem(text: str, body: bytes, base: int) -> BadVectors:
    """Return the problem for a body that is not valid JSON. `text` is the decoder's message."""
    if opening := _OPENING.match(body):
        begin = opening.end()
    elif body.startswith(b"["):
        begin = 1
    else:
        return BadVectors('The body is not JSON of the form {"vectors": [[...], ...]}.')
    # Before the first character that no row has, the text has only brackets, commas and numbers.
    # Counting them gives the row and the column of this character.
    first_wrong = _NOT_IN_ROWS.search(body, begin)
    offset = _BYTE.search(text)
    stops = [int(offset[1])] if offset else []
    if first_wrong and (not offset or first_wrong.start() <= int(offset[1])):
        stops.append(first_wrong.start())
    if not stops:
        return BadVectors("The JSON ends before it is complete.")
    row, column = _place_after(body[begin : min(stops)])
    problem = "The value is not a finite number."
    if column is None:
        problem = "A bracket or a comma is not where JSON has one."
    return BadVectors(problem, row=None if row is None else row + base, column=column)


def _place_after(before: bytes) -> tuple[int | None, int | None]:
    """Return the row and the column at the end of `before`, which begins after the first `[`."""
    opened = before.rfind(b"[")
    row = before.count(b"[") - 1
    if opened > before.rfind(b"]"):
        return row, before.count(b",", opened)
    return (row + 1, None) if before.count(b"[") == before.count(b"]") else (None, None)
