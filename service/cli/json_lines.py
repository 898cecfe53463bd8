"""Reads lines of JSON as the lines of a table: one object in each line."""

import codecs
import io
import json
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from models.columns import quoted
from service.cli import console
from service.cli.table_files import BadTable

_ASIDE = ("timestamp", "source", "id")


def is_json_lines(head: bytes) -> bool:
    """Return whether a file that begins with `head` has one JSON object in each line."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    line, newline, _ = text.partition(b"\n")
    try:
        return text.startswith(b"{") and (not newline or isinstance(json.loads(line), dict))
    except (ValueError, RecursionError):
        return False


def json_lines(file: str, source: BinaryIO, head: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the header, and then each line, each as the number of the line and its cells.

    A line is an object, or `{"record": {...}, "timestamp", "source", "id"}`. The member `ms` of an
    object in `db` has the name `db.ms`. `head` is the beginning of the file. The header has the
    names of the first line and of all other whole lines in `head`. If other lines have an object in
    place of a null, the null has no column. Names that only later lines have are left out, and a
    message on stderr says so. Raises BadTable.
    """
    objects = _objects(file, source)
    line, first = next(objects, (0, {}))
    if not first:
        raise BadTable(f"{file} is empty")
    whole = io.BytesIO(head[: head.rfind(b"\n") + 1])
    records = [first, *(record for _, record in _objects(file, whole))]
    paths = {name for record in records for name in record}
    objects_in = {path[:at] for path in paths for at, sign in enumerate(path) if sign == "."}
    names = dict.fromkeys(
        name
        for record in records
        for name, value in record.items()
        if value is not None or name not in objects_in
    )
    yield line, list(names)
    known = set(names)
    for number, record in chain([(line, first)], objects):
        late = [name for name in record if name not in known and record[name] is not None]
        if late:
            known.update(late)
            console.complain(
                f"{file}, line {number}: {quoted(late)} is in none of the first lines: left out"
            )
        yield number, [_cell(record.get(name)) for name in names]


def _objects(file: str, source: BinaryIO) -> Iterator[tuple[int, dict[str, object]]]:
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text.decode("utf-8-sig"))
            record = row.get("record") if isinstance(row, dict) else None
            if isinstance(record, dict):
                row = record | {name: row[name] for name in _ASIDE if name in row}
            flat = dict(_flat("", row)) if isinstance(row, dict) else {}
        except (ValueError, RecursionError):
            raise BadTable(f"{file}, line {number}: not JSON: correct or delete the line") from None
        if not flat:
            raise BadTable(f"{file}, line {number}: not an object of column names and values")
        yield number, flat


def _flat(before: str, record: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the members of an object and of the objects in it, by their names from the top."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(f"{before}{name}.", value)
        else:
            yield before + name, value


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
