"""Reads rows by name in JSON as a matrix, from a list `records` or from one record a line."""

import functools
import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
import numpy as np

from models.arrays import Array
from models.categories import LONGEST_WORD
from service.domain.columns import Columns, value_in
from service.domain.row_tags import NO_TAGS, RowTags, row_tags
from service.domain.words import SEEN
from service.problems import BadVectors
from service.scoring import pieces

_LOCATED = 2**20  # bytes; in a longer element the place of an error is not looked for

_AWKWARD = re.compile(r'[\x00-\x1f"\\]')
_decoder = json.JSONDecoder()
_TYPES: dict[str, Any] = {"number": float, "flag": bool | float, "category": str | int | bool}


class Records:
    """Reads rows by name for the columns of one detector.

    With `gaps` null stands for a missing value. With `extra` unknown names are ignored.
    """

    def __init__(self, columns: Columns, *, gaps: bool, extra: bool) -> None:
        self._columns = columns
        self._gaps = gaps
        self._extra = extra
        self._words = [i for i, kind in enumerate(columns.types) if kind == "category"]
        # msgspec cannot have fields with such names. They get other names before it reads the text.
        awkward = any(_AWKWARD.search(name) for name in columns.names)
        self._aliases = {n: f"c{i}" for i, n in enumerate(columns.names)} if awkward else {}
        fields = []
        for i, kind in enumerate(columns.types):
            row_type = _TYPES[kind]
            fields.append((f"c{i}", row_type | None if gaps else row_type))
        record = msgspec.defstruct(
            "Record",
            fields,
            rename={} if self._aliases else {f"c{i}": n for i, n in enumerate(columns.names)},
            forbid_unknown_fields=not extra,
        )
        line = msgspec.defstruct(
            "Line",
            [
                ("record", record),
                ("timestamp", str | float | None, None),
                ("source", str | None, None),
                ("id", str | None, None),
            ],
            forbid_unknown_fields=True,
        )
        body = msgspec.defstruct(
            "Body",
            [("records", list[record])],  # type: ignore[valid-type]
            forbid_unknown_fields=True,
        )
        self._body: msgspec.json.Decoder[Any] = msgspec.json.Decoder(body)
        self._pack = struct.Struct(f"<{len(columns.names)}f").pack
        self._list = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._lines: msgspec.json.Decoder[Any] = msgspec.json.Decoder(line)

    def read(self, text: bytes) -> Array:
        """Return the rows (n, d) of a JSON list of records. Raises BadVectors or TooLarge."""
        matrices: list[Array] = []
        rows = 0
        for piece in pieces.lists(text):
            pieces.check_length(piece, rows)
            try:
                matrices.append(self._matrix(self._list.decode(self._renamed(piece)), rows))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.locate(_decoded_leniently(piece), rows)
            rows += len(matrices[-1])
            pieces.check_rows(rows)
        return np.concatenate(matrices)

    def packed(self, body: bytes) -> bytes | None:
        """Return the rows of a valid body as little-endian float32, one after the other.

        This is the fast path. Return None for every body that it does not take: another reader
        then reads the body or reports its error.
        """
        if self._aliases:
            return None
        try:
            records = self._body.decode(body).records
            values = [msgspec.structs.astuple(record) for record in records]
            if self._words:
                values = [self._with_codes(row, 0) for row in values]
            rows = [self._pack(*row) for row in values]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadVectors):
            return None
        except (struct.error, OverflowError):
            return None  # a missing value, or a number out of range of float32
        return b"".join(rows) or None if body.count(b'"records"') == 1 else None

    def read_lines(self, body: bytes) -> tuple[Array, RowTags]:
        """Return the rows (n, d) of a body with one record a line, and the tags of the rows."""
        matrices: list[Array] = []
        tags: dict[str, list[Any]] = {"timestamp": [], "source": [], "id": []}
        rows = 0
        for piece in pieces.lines(body):
            pieces.check_length(piece, rows)
            try:
                lines = self._lines.decode_lines(self._renamed_lines(piece))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._locate_line(piece, rows)
            matrices.append(self._matrix([line.record for line in lines], rows))
            for name, values in tags.items():
                values += [getattr(line, name) for line in lines]
            rows += len(lines)
            pieces.check_rows(rows)
        if not rows:
            raise BadVectors("There are no vectors.")
        return np.concatenate(matrices), _tags(rows, tags)

    def _renamed(self, text: bytes) -> bytes:
        """Return a JSON list of records with the aliases of the columns' names."""
        if not self._aliases:
            return text
        return msgspec.json.encode(
            [self._with_aliases(record) for record in msgspec.json.decode(text)]
        )

    def _renamed_lines(self, text: bytes) -> bytes:
        """Return lines with one record each with the aliases of the columns' names."""
        if not self._aliases:
            return text
        lines = [msgspec.json.decode(line) for line in text.split(b"\n") if line.strip()]
        for line in lines:
            if isinstance(line, dict) and "record" in line:
                line["record"] = self._with_aliases(line["record"])
        return b"\n".join(map(msgspec.json.encode, lines))

    def _with_aliases(self, record: Any) -> Any:
        if not isinstance(record, dict):
            return record
        return {self._aliases.get(name, f"?{name}"): value for name, value in record.items()}

    def _matrix(self, records: Sequence[msgspec.Struct], base: int) -> Array:
        """Return the records as rows (n, d); the first one is row `base` of the request."""
        rows = [msgspec.structs.astuple(record) for record in records]
        if self._words:
            rows = [self._with_codes(row, number) for number, row in enumerate(rows, base)]
        with np.errstate(over="ignore"):
            # None becomes NaN. A number out of range becomes infinite, and is found later.
            return (
                np.array(rows, np.float64)
                .astype(np.float32)
                .reshape(len(rows), len(self._columns.names))
            )

    def _with_codes(self, values: tuple[Any, ...], row: int) -> tuple[Any, ...]:
        """Return the row with each word replaced by its code."""
        coded = list(values)
        for place in self._words:
            if coded[place] is not None:
                coded[place] = self._code_of(coded[place], row, place)
        return tuple(coded)

    def _code_of(self, value: str | float, row: int, place: int) -> float | None:
        if not isinstance(value, str) or 0 < len(value) <= LONGEST_WORD:
            return SEEN.code(value)
        if value:
            subject = value_in(self._columns.names[place])
            text = f"{subject} has more than {LONGEST_WORD} characters."
            raise BadVectors(text, row=row, column=place)
        if not self._gaps:
            raise blank_problem(self._columns, row, place)
        return None

    def locate(self, records: Any, first: int) -> NoReturn:
        """Raise BadVectors with the reason why the decoded `records` do not fit this detector."""
        if not isinstance(records, list):
            raise BadVectors("`records` is a list of objects.")
        for row, record in enumerate(records, first):
            if not isinstance(record, dict):
                raise BadVectors("A record is an object of column names and values.", row=row)
            try:
                self._columns.order(list(record), extra=self._extra)
            except BadVectors as problem:
                raise BadVectors(problem.detail, row=row) from None
            for place, (name, kind) in enumerate(
                zip(self._columns.names, self._columns.types, strict=True)
            ):
                self._check_value(record[name], kind, row, place)
        raise BadVectors("`records` is not JSON.")

    def _check_value(self, value: Any, kind: str, row: int, place: int) -> None:
        subject = value_in(self._columns.names[place])
        if value is None:
            if not self._gaps:
                raise blank_problem(self._columns, row, place)
        elif kind == "category":
            if not isinstance(value, str | int):
                raise BadVectors(f"{subject} is not a word.", row=row, column=place)
            self._code_of(value, row, place)
        elif isinstance(value, bool):
            if kind != "flag":
                raise BadVectors(f"{subject} is a boolean, not a number.", row=row, column=place)
        elif not isinstance(value, int | float):
            expected = "true or false" if kind == "flag" else "a number"
            raise BadVectors(f"{subject} is not {expected}.", row=row, column=place)
        elif not abs(value) <= 1.8e308 or not math.isfinite(value):
            raise BadVectors(f"{subject} is not a finite number.", row=row, column=place)

    def _locate_line(self, body: bytes, row: int) -> NoReturn:
        for line in body.split(b"\n"):
            if not line.strip():
                continue
            try:
                self._lines.decode(self._renamed_lines(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._check_line(line, row)
            row += 1
        raise BadVectors("A line is not JSON.")

    def _check_line(self, line: bytes, row: int) -> NoReturn:
        decoded = _decoded_leniently(line, row)
        if not isinstance(decoded, dict) or "record" not in decoded:
            raise BadVectors('A line is {"record": {...}, "timestamp", "source", "id"}.', row=row)
        if not set(decoded) <= {"record", "timestamp", "source", "id"}:
            raise BadVectors(
                "Unknown field; a line has `record`, `timestamp`, `source`, `id`.", row=row
            )
        for name in ("source", "id"):
            if not isinstance(decoded.get(name), str | None):
                raise BadVectors(f"`{name}` is not a string.", row=row)
        stamp = decoded.get("timestamp")
        if isinstance(stamp, bool) or not isinstance(stamp, str | int | float | None):
            raise BadVectors("`timestamp` is RFC 3339, or seconds since 1970.", row=row)
        self.locate([decoded["record"]], row)


@functools.lru_cache(maxsize=256)
def records_of(columns: Columns, *, gaps: bool, extra: bool) -> Records:
    """Return the reader for these columns, from a cache."""
    return Records(columns, gaps=gaps, extra=extra)


def blank_problem(columns: Columns, row: int, place: int) -> BadVectors:
    """Return the problem for a blank value, if the detector does not take blanks."""
    return BadVectors(
        f"{value_in(columns.names[place])} is blank: fill it, or set `missing` to `impute` in the "
        "config.",
        row=row,
        column=place,
    )


def _tags(rows: int, tags: dict[str, list[Any]]) -> RowTags:
    given: dict[str, list[Any] | None] = {}
    for name, values in tags.items():
        absent = [value is None for value in values]
        if any(absent) and not all(absent):
            raise BadVectors(
                f"The line has no `{name}`: give it on every line, or on none.",
                row=absent.index(True),
            )
        given[name] = None if all(absent) else values
    if not any(given.values()):
        return NO_TAGS
    return row_tags(rows, given["timestamp"], given["source"], given["id"])


def _decoded_leniently(text: bytes, row: int | None = None) -> Any:
    """Return the JSON that Python's reader decodes, which takes NaN and Infinity too."""
    if len(text) > pieces.PIECE + _LOCATED:
        raise BadVectors("The record is not JSON.", row=row)
    try:
        # The text after the value is ignored: the list of records may be part of a longer text.
        return _decoder.raw_decode(text.decode().lstrip())[0]
    except (ValueError, RecursionError):
        raise BadVectors("The record is not JSON.", row=row) from None
