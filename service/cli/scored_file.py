"""The file that `score` writes: every row of the user's file with its scores.

Rows go to the part file `OUT.part`, a CSV. `OUT.part.json` says how many rows it has. After an
interruption, the command continues from there. At the end the part becomes the file.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.lib import format as npy

from models.columns import quoted
from service.cli import console
from service.cli.progress import ShownProgress
from service.cli.score_result import ScoredRow
from service.cli.table_files import BadTable
from service.domain.cells import is_number

if TYPE_CHECKING:
    from service.cli.sheet import Sheet
    from service.cli.targets import Targets

FORMAT = 1
ADDED = ("score", "p_value", "severity", "is_anomaly", "state", "why")
_NUMBERS = ADDED[:4]  # the added columns that an .npy file has
# A spreadsheet computes a cell that begins so. `why` begins with the name of a column, which
# another person may have chosen. With an apostrophe before it, the cell is text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_AT_ONCE = 5000  # rows that are written at once


class ScoredFile:
    """Writes the rows of a file in their order. An earlier command wrote the first `done` of them.

    The ending of `out` decides between CSV, .npy (numbers only) and .parquet. None writes nothing.
    `scored_by` describes everything that decides the scores. A part with another description is
    not continued. If `scored_by` is None, no part is continued. `words` are columns whose cells
    stay text, also if all are digits.
    """

    def __init__(
        self,
        out: Path | None,
        sheet: "Sheet",
        scored_by: Sequence[str] | None,
        words: Iterable[str] = (),
    ) -> None:
        self._out, self._sheet, self._words, self.done = out, sheet, set(words), 0
        self._names = [*sheet.header, *(f"anamnesis_{name}" for name in ADDED)]
        self._kind = _kind(out, sheet)
        if out is None:
            return
        # Any other path than a regular file, such as a pipe, is written directly.
        self._direct = out.exists() and not out.is_file()
        self._part = out if self._direct else out.with_name(out.name + ".part")
        self._about = self._part.with_name(self._part.name + ".json")
        self._key = "" if scored_by is None else _digest(sheet.file, *scored_by)
        self._rows, size = (0, 0) if self._direct or not self._key else self._completed_before()
        self.done = self._rows
        self._file = self._part.open("r+b" if size else "wb")
        if size:
            self._file.truncate(size)
            self._file.seek(size)
            console.complain(
                f"{self._part}: {self.done} rows were scored before; the summary is about the rest"
            )
        text = io.TextIOWrapper(self._file, encoding="utf-8", newline="", write_through=True)
        self._write = csv.writer(text)
        if sheet.header and not size:
            self._write.writerow(self._names)

    def add(self, row: ScoredRow) -> None:
        """Write the next row."""
        if self._out is not None:
            values = [
                "" if value is None else value for value in (getattr(row, name) for name in ADDED)
            ]
            if self._kind != ".parquet" and str(values[-1]).startswith(_FORMULA):
                values[-1] = f"'{values[-1]}"
            self._write.writerow([*row.cells, *values])
            self._rows += 1

    def keep(self) -> None:
        """Store how far the part is, so that a later command need not write these rows again."""
        if self._out is None or self._direct:
            return
        self._file.flush()
        written = self._about.with_name(self._about.name + ".new")
        about = {"format": FORMAT, "of": self._key, "rows": self._rows, "bytes": self._file.tell()}
        written.write_text(json.dumps(about))
        written.replace(self._about)

    def _completed_before(self) -> tuple[int, int]:
        """Return how many rows and bytes of the part an earlier command has completed."""
        try:
            about = json.loads(self._about.read_text())
            size = int(about["bytes"])
            same = (about["format"], about["of"]) == (FORMAT, self._key)
            if same and 0 < size <= self._part.stat().st_size:
                return int(about["rows"]), size
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._out is None:
            return
        self._file.close()
        if kind is not None or self._direct:
            return
        file = self._part
        if self._kind in (".npy", ".parquet"):
            file = self._out.with_name(self._out.name + ".new")
            write = self._to_npy if self._kind == ".npy" else self._to_parquet
            with ShownProgress(f"writing {self._out}") as progress:
                write(self._part, file, progress)
        file.replace(self._out)
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _to_parquet(self, part: Path, target: Path, progress: ShownProgress) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        names, numbers = self._names, set(self._sheet.names or self._sheet.header) - self._words
        headed = bool(self._sheet.header)
        if not headed:
            with part.open(encoding="utf-8", newline="") as file:
                width = len(next(csv.reader(file), ()))
            positions = [str(number) for number in range(1, width - len(ADDED) + 1)]
            names, numbers = [*positions, *names], set(positions)
        wanted = dict(self._sheet.types or dict.fromkeys(numbers, pa.float64()))
        wanted |= {f"anamnesis_{name}": pa.float64() for name in _NUMBERS[:3]}
        wanted["anamnesis_is_anomaly"] = pa.bool_()
        types = [wanted.get(name, pa.string()) for name in names]
        with _as_text(part, names, headed=headed) as batches:
            for done, batch in _counted(batches):
                types = _types_that_fit(batch, types)
                progress.at(done / self._rows / 2)
        schema = pa.schema(list(zip(names, types, strict=True)))
        with (
            _as_text(part, names, headed=headed) as batches,
            parquet.ParquetWriter(target, schema) as writer,
        ):
            for done, batch in _counted(batches):
                columns = list(map(_cast, batch.columns, types))
                writer.write_batch(pa.record_batch(columns, schema))
                progress.at((1 + done / self._rows) / 2)

    def _to_npy(self, part: Path, target: Path, progress: ShownProgress) -> None:
        """Write the numbers of a part as a matrix (n, d + 4) of float64. A blank cell is NaN."""
        rows = width = 0
        with part.open(encoding="utf-8", newline="") as text, target.open("wb") as file:
            for matrix in _matrices(csv.reader(text)):
                if not rows:
                    width = matrix.shape[1]
                    _header(file, 0, width)
                rows += len(matrix)
                file.write(matrix.tobytes())
                progress.at(rows / self._rows)
            file.seek(0)
            _header(file, rows, width)


def _kind(out: Path | None, sheet: "Sheet") -> str:
    """Return the ending of `out`. Raises BadTable if such a file cannot be written."""
    if out is None:
        return ""
    kind = out.suffix.lower()
    if out.is_dir():
        raise BadTable(f"{out} is a folder: give the name of a file")
    if out.exists() and Path(sheet.file).exists() and out.samefile(sheet.file):
        raise BadTable(f"{out} is the input file: give the name of another file")
    if kind in {".xlsx", ".xls"}:
        raise BadTable(f"{out}: {kind} cannot be written: write .csv or .parquet")
    if kind == ".parquet":
        try:
            import pyarrow.csv
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise BadTable(f"{out}: to write Parquet, pip install pyarrow") from None
    if kind == ".npy" and sheet.first is not None:
        for name, cells in zip(sheet.header, zip(*sheet.first.rows, strict=True), strict=False):
            if any(cell.strip() and not is_number(cell) for cell in cells):
                raise BadTable(
                    f"{out}: column {quoted([name])} does not hold numbers: write .csv or .parquet"
                )
    return kind


def _digest(file: str, *scored_by: str) -> str:
    status = Path(file).stat() if Path(file).is_file() else None
    if status is None:
        return ""
    parts = (str(Path(file).resolve()), str(status.st_size), str(status.st_mtime_ns), *scored_by)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _as_text(part: Path, names: list[str], *, headed: bool) -> Any:
    """Return pyarrow's reader of a part's rows, all of whose columns are text."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = dict.fromkeys(names, pa.string())
    return arrow_csv.open_csv(
        part,
        arrow_csv.ReadOptions(column_names=names, skip_rows=int(headed)),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )


def _counted(batches: Any) -> Iterator[tuple[int, Any]]:
    """Yield each batch with the number of rows up to its end."""
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        yield rows, batch


def _types_that_fit(batch: Any, types: list[Any]) -> list[Any]:
    """Return the types, with text for each column that has a cell of another type, as 1.234,5."""
    import pyarrow as pa

    fitting = list(types)
    for index, cells in enumerate(batch.columns):
        try:
            _cast(cells, types[index])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            fitting[index] = pa.string()
    return fitting


def _cast(cells: Any, kind: Any) -> Any:
    """Convert a column of text to a type. Spaces around a number do not count."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_null(kind) and cells.null_count == len(cells):
        return pa.nulls(len(cells))
    if pa.types.is_time(kind):  # pyarrow reads times of day from text only behind a date
        days = compute.binary_join_element_wise("1970-01-01", cells, "T")
        return days.cast(pa.timestamp("us")).cast(kind)
    if kind != pa.float64():
        return cells.cast(kind)
    values = compute.utf8_trim_whitespace(cells)
    return compute.if_else(compute.equal(values, ""), None, values).cast(kind)


def _header(file: Any, rows: int, width: int) -> None:
    # The header of an .npy file has room for a larger number of rows.
    npy.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (rows, width)}
    )


def _matrices(lines: Iterator[list[str]]) -> Iterator[np.ndarray]:
    rows: list[list[float]] = []
    for number, cells in enumerate(lines):
        kept = cells[: len(cells) - 2]  # without state and why
        if number == 0 and kept[-1] == "anamnesis_is_anomaly":
            continue
        rows.append([_number(cell) for cell in kept])
        if len(rows) == _AT_ONCE:
            yield np.array(rows)
            rows = []
    if rows:
        yield np.array(rows)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return {"True": 1.0, "False": 0.0}.get(cell, float("nan"))


def scored_by(targets: "Targets", *more: str) -> list[str] | None:
    """Return a description of everything that decides the scores, None if it is not known yet."""
    first = targets.first
    if first.status is None or targets.grouped:
        return None
    status = first.status
    state = (status.get("created_at"), status.get("generation"), status.get("config_revision"))
    return [first.name, *map(str, state), *more]
