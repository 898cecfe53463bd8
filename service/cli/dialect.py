"""Opens text tables: finds their encoding, their delimiter and their decimal sign."""

import codecs
import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from service.cli.json_lines import is_json_lines, json_lines
from service.cli.table_files import BadTable
from service.cli.table_start import DELIMITERS, JOINED, TableStart, find_table
from service.domain.cells import is_number

_HEAD_BYTES = 2**18
_HEAD_LINES = 100
_ROWS_SHOWN = 3  # rows, with the header, after which no number in a row is awaited
_LINES_OF_A_ROW = 20  # a row with more lines among the first ones has a stray quotation mark
_LONGEST_CELL = 2**20  # characters; a longer cell means that a quote is never closed
_REFUSED = {
    b"PK\x03\x04": "an Excel workbook or a zip archive: export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export the sheet as CSV",
    b"PAR1": "a Parquet file: give it the ending .parquet",
    b"\x93NUMPY": "a NumPy file: give it the ending .npy",
    b"\x89HDF": "an HDF5 file: export the table as CSV",
    b"<!DOCTYPE": "a web page, perhaps a login: download the table itself",
    b"<html": "a web page, perhaps a login: download the table itself",
    b"<?xml": "XML: export the table as CSV",
    b"BZh": "compressed by bzip2: decompress it, or use gzip",
    b"\xfd7zXZ": "compressed by xz: decompress it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard: decompress it, or use gzip",
    b"[": "JSON: export the table as CSV",
    b"{": "JSON: export the table as CSV, or as JSON with one object in each line",
}


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


# A file that is not UTF-8 is nearly always cp1252. The first byte that is not UTF-8 may come late
# in the file, so each such byte is read as cp1252 when it comes.
codecs.register_error("anamnesis.cp1252", _as_cp1252)


class CountedStream(io.RawIOBase):
    """A stream of bytes that counts the bytes read from it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._ahead = b""  # read from the source, but not yet from this stream
        self.consumed = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read the bytes that are ready, at least one unless the stream has ended."""
        data = self._ahead[: len(buffer)] or self._read(len(buffer))
        self._ahead = self._ahead[len(data) :]
        buffer[: len(data)] = data
        self.consumed += len(data)
        return len(data)

    def look_further(self) -> bytes:
        """Return the next bytes of the source, b"" at its end. They are still to be read."""
        data = self._read(_HEAD_BYTES)
        self._ahead += data
        return data

    def _read(self, most: int) -> bytes:
        data: bytes = getattr(self._source, "read1", self._source.read)(most)
        return data


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table separates cells and writes numbers. `notes` are for people."""

    delimiter: str = ","
    comma: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextTable:
    """An open text table. `lines` yields the number and the cells of each non-blank line.

    If `named`, the first line is a header, whatever its cells are. The file has `head` lines before
    its rows, if the first of `lines` is a header.
    """

    file: str
    dialect: Dialect
    lines: Iterator[tuple[int, list[str]]]
    bytes_read: CountedStream
    named: bool = False
    head: int = 1


def open_table(file: str, source: BinaryIO) -> TextTable:
    """Open a file of CSV or of lines of JSON, which may be compressed by gzip. Raises BadTable."""
    csv.field_size_limit(_LONGEST_CELL)
    stream, notes = CountedStream(source), []
    data = io.BufferedReader(stream, _HEAD_BYTES)
    packed = data.peek(2)[:2] == b"\x1f\x8b"
    if packed:
        data = io.BufferedReader(gzip.GzipFile(fileobj=data), _HEAD_BYTES)  # type: ignore[arg-type]
        notes.append("gzip")
    try:
        head = data.peek(_HEAD_BYTES)
    except (OSError, EOFError):
        raise BadTable(f"{file}: the gzip file is damaged") from None
    if is_json_lines(head):
        return TextTable(
            file, Dialect(notes=tuple(notes)), json_lines(file, data, head), stream, named=True
        )
    for magic, description in _REFUSED.items():
        if head.removeprefix(codecs.BOM_UTF8).lstrip(b" \r\n").startswith(magic):
            raise BadTable(f"{file} is {description}")
    head = head if packed else _until_a_row(head, stream)
    encoding, encoding_notes = _encoding(head)
    notes += encoding_notes
    begun = find_table(_sample(head.decode(encoding, "anamnesis.cp1252")))
    if not begun.lines:
        raise BadTable(f"{file} is empty")
    lines, delimiter = begun.lines, begun.delimiter
    notes += begun.notes
    comma = delimiter != "," and _has_decimal_commas(lines, delimiter)
    if delimiter != "," and any(delimiter in line for line in lines):
        notes.append(DELIMITERS[delimiter])
    if comma:
        notes.append("decimal commas")
    text = io.TextIOWrapper(data, encoding, "anamnesis.cp1252", newline="")
    dialect, before = Dialect(delimiter, comma, tuple(notes)), begun.skipped + 1 + begun.units
    return TextTable(file, dialect, _lines(file, text, begun), stream, head=before)


def _encoding(head: bytes) -> tuple[str, list[str]]:
    """Return the codec of a file that begins with `head`, and notes about it for a person."""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", ["UTF-8 with BOM"]
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32", ["UTF-32"]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ["UTF-16"]
    # Latin letters have a zero in every second byte in UTF-16, and no zero byte in UTF-8.
    odd, even = head[1:400:2].count(0), head[:400:2].count(0)
    if max(odd, even) > 0.3 * min(len(head), 400) / 2:
        return ("utf-16-le" if odd > even else "utf-16-be"), ["UTF-16"]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "utf-8", ["cp1252"]
    return "utf-8", []


def _until_a_row(head: bytes, stream: CountedStream) -> bytes:
    """Return the beginning of a file from its `head` to its first row, for which this waits.

    A log may have only its header yet, which does not show the decimal sign, or half a row.
    """
    while len(head) < _HEAD_BYTES and not _shows_a_row(head[: head.rfind(b"\n") + 1]):
        if not (more := stream.look_further()):
            break
        head += more
    return head


def _shows_a_row(head: bytes) -> bool:
    """Return whether the beginning of a file has a row with a number, or several rows."""
    begun = find_table(_sample(head.decode(_encoding(head)[0], "anamnesis.cp1252")))
    rows = list(csv.reader(begun.lines, delimiter=begun.delimiter))
    if len(rows) > _ROWS_SHOWN:
        return True
    numbers = [is_number(cell) or is_number(cell, comma=True) for cell in (rows or [[]])[-1]]
    return any(numbers) and len(rows[0]) == len(numbers)


def _sample(text: str) -> list[str]:
    """Return the first lines. If there are many, a last one without its end is left out.

    A line that ends within quotation marks, such as a header of a spreadsheet, is joined with the
    next ones by JOINED.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    whole = len(lines) <= 2 or text.endswith(("\n", "\r"))
    lines = (lines if whole else lines[:-1])[:_HEAD_LINES]
    found, at = [], 0
    while at < len(lines):
        ends = range(at + 1, min(at + 1 + _LINES_OF_A_ROW, len(lines) + 1))
        joined = (JOINED.join(lines[at:end]) for end in ends)
        found.append(next((one for one in joined if one.count('"') % 2 == 0), lines[at]))
        at += 1 + found[-1].count(JOINED)
    return found


def _has_decimal_commas(lines: Sequence[str], delimiter: str) -> bool:
    cells = [cell.strip() for row in csv.reader(lines, delimiter=delimiter) for cell in row]
    signs = Counter(_decimal_sign(cell) for cell in cells)
    return signs[","] > signs["."]


def _decimal_sign(cell: str) -> str:
    """Return the sign that must be the decimal sign of a number, or the likelier one, else "".

    Of two signs, the last one is the decimal sign. A sign that comes twice separates thousands.
    """
    signs = [character for character in cell if character in ",."]
    sign = signs[-1] if signs else ""
    if signs.count(sign) > 1:
        sign = "," if sign == "." else "."
    return sign if is_number(cell, comma=sign == ",") else ""


def _lines(file: str, text: io.TextIOWrapper, begun: TableStart) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each row from the header on.

    Comments, and lines equal to the header, as in files that were joined, are left out.
    """
    for _ in range(begun.skipped):
        text.readline()
    rows = _rows(file, csv.reader(text, delimiter=begun.delimiter), begun.skipped)
    line, first = next(rows)
    if first[0].startswith("#"):
        first[0] = first[0].lstrip("# ")
    yield line, begun.header or first
    named = not any(map(is_number, first))
    for line, cells in islice(rows, begun.units, None):
        is_comment = cells[0].startswith("#") and len(cells) != len(first)
        if not (is_comment or (named and cells == first)):
            yield line, cells


def _rows(file: str, reader: Any, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line of a reader that is not blank."""
    line = 0
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error:
            raise BadTable(f"{file}, line {line}: a quotation mark is never closed") from None
        except (EOFError, OSError):
            raise BadTable(f"{file}: the file is damaged after line {line - 1}") from None
        if cells is None:
            return
        if any("\0" in cell for cell in cells):
            raise BadTable(f"{file}, line {line} has a NUL byte: export the file as text again")
        if any(cells):
            yield line, cells
