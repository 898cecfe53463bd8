"""A history in a file, for a backtest: vectors with, if they are there, times and labels."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from service.cli.table_files import BadTable

ANOMALOUS = {"1": True, "true": True, "anomaly": True, "0": False, "false": False, "normal": False}
_BLANK = {"", "na", "nan", "none", "null"}
_MILLISECONDS = 1e11  # seconds since 1970 are fewer until the year 5138


@dataclass(frozen=True, slots=True)
class Recorded:
    """Vectors (n, d) in the order of time; times (n,) in seconds since 1970; known anomalies.

    Where gaps were asked for, NaN stands for what was not observed.
    """

    features: tuple[str, ...]
    vectors: Array
    times: NDArray[np.float64] | None
    anomalous: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a file by name, a sequence each, and where its row i stands."""

    file: str
    values: dict[str, Any]
    where: Callable[[int], str]


def read(
    file: Path, time: str | None = None, label: str | None = None, *, gaps: bool = False
) -> Recorded:
    """Read a CSV, `.npy`, `.npz` or `.parquet` file whole.

    `time` and `label` are columns, by name or by number from 1 (in `.npz` files, arrays); all
    others are features. Rows are put in the order of time. With `gaps` a blank cell is no error.
    Raises BadTable naming the place.
    """
    reader = {".npy": _npy, ".npz": _npz, ".parquet": _parquet}.get(file.suffix, _csv)
    columns = reader(file)
    names = list(columns.values)
    times = _taken(columns, names, ("--time", time), _time)
    anomalous = _taken(columns, names, ("--label", label), _label)
    features = tuple(columns.values)
    if not features:
        raise BadTable(f"{file}: no feature is left beside time and label")
    vectors = np.column_stack([_numbers(columns, name, gaps=gaps) for name in features])
    if (empty := np.isnan(vectors).all(axis=1)).any():
        raise BadTable(f"{columns.where(int(empty.argmax()))}: nothing was observed")
    if times is None:
        return Recorded(features, vectors, None, anomalous)
    order = np.argsort(times, kind="stable")
    known = None if anomalous is None else anomalous[order]
    return Recorded(features, vectors[order], times[order], known)


def _taken(
    columns: _Columns, names: list[str], asked: tuple[str, str | None], parse: Callable[[Any], Any]
) -> NDArray[Any] | None:
    """Take a column out and return its values parsed, (n,); BadTable for one that is not there."""
    option, wanted = asked
    if wanted is None:
        return None
    if wanted not in names and wanted.isdigit() and 1 <= int(wanted) <= len(names):
        wanted = names[int(wanted) - 1]
    if wanted not in columns.values:
        some = ", ".join(names[:8]) + (", ..." if names[8:] else "")
        raise BadTable(f"{columns.file}: there is no column {wanted} ({option}); it has {some}")
    parsed = []
    for row, value in enumerate(columns.values.pop(wanted)):
        try:
            parsed.append(parse(value))
        except (ValueError, OverflowError):
            raise BadTable(
                f"{columns.where(row)}, column {wanted}: {str(value)[:40]!r} is no "
                f"{'time (ISO 8601, or seconds since 1970)' if parse is _time else 'label (0, 1)'}"
            ) from None
    return np.array(parsed)


def _time(value: Any) -> float:
    """Return seconds since 1970; a time without a zone is UTC."""
    if isinstance(value, datetime):
        found = value
    else:
        try:
            seconds = float(value)
        except ValueError:
            found = datetime.fromisoformat(str(value).strip())
        else:
            if not np.isfinite(seconds):
                raise ValueError(value)
            return seconds / 1000 if abs(seconds) > _MILLISECONDS else seconds
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _label(value: Any) -> bool:
    text = str(value).strip().lower()
    text = text.removesuffix(".0")
    if text not in ANOMALOUS:
        raise ValueError(value)
    return ANOMALOUS[text]


def _numbers(columns: _Columns, name: str, *, gaps: bool) -> Array:
    """Return a feature's values, (n,) float32; BadTable naming the first that is none.

    With `gaps` what is blank is NaN.
    """
    values = columns.values[name]
    try:
        found = np.asarray(values, np.float64).astype(np.float32)
    except (TypeError, ValueError):
        found = np.array([_number(value) for value in values], np.float32)
    for row in np.flatnonzero(~np.isfinite(found)):
        blank = str(values[row]).strip().lower() in _BLANK
        if blank and gaps:
            continue
        ways = "--impute takes gaps" if blank else "--time and --label take a column out"
        place = f"{columns.where(int(row))}, column {name}"
        raise BadTable(f"{place}: not a finite number; {ways}")
    return found


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _csv(file: Path) -> _Columns:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(text)
        try:
            rows = [(reader.line_num, fields) for fields in reader if fields]
        except csv.Error as error:
            raise BadTable(f"{file}, line {reader.line_num}: {error}") from None
    if not rows:
        raise BadTable(f"{file} is empty")
    width = len(rows[0][1])
    for line, fields in rows:
        if len(fields) != width:
            raise BadTable(f"{file}, line {line}: {len(fields)} fields; the first line has {width}")
    names = [str(column) for column in range(1, width + 1)]
    if all(np.isnan(_number(field)) for field in rows[0][1]):
        names = [field.strip() for field in rows.pop(0)[1]]
        if len(set(names)) < width:
            raise BadTable(f"{file}: two columns have the same name")
    lines = [line for line, _ in rows]
    values = dict(zip(names, zip(*(fields for _, fields in rows), strict=True), strict=False))
    if not rows:
        raise BadTable(f"{file} holds a header and nothing else")
    return _Columns(str(file), values, lambda row: f"{file}, line {lines[row]}")


def _matrix(file: Path, matrix: NDArray[Any], more: dict[str, Any]) -> _Columns:
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
        raise BadTable(f"{file} holds {matrix.dtype} of shape {matrix.shape}; wanted is a matrix")
    values = {str(column): matrix[:, column - 1] for column in range(1, matrix.shape[1] + 1)}
    return _Columns(str(file), values | more, lambda row: f"{file}, row {row}")


def _npy(file: Path) -> _Columns:
    return _matrix(file, _loaded(file), {})


def _npz(file: Path) -> _Columns:
    arrays = _loaded(file)
    wide = [name for name in arrays if arrays[name].ndim == 2]
    if len(wide) != 1:
        raise BadTable(f"{file}: {len(wide)} matrices; wanted is one, and vectors beside it")
    matrix = arrays.pop(wide[0])
    beside = {name: array for name, array in arrays.items() if array.shape == matrix.shape[:1]}
    return _matrix(file, matrix, beside)


def _loaded(file: Path) -> Any:
    try:
        found = np.load(file, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy parses the header as Python
        raise BadTable(f"{file}: not a file of numbers ({error})") from None


def _parquet(file: Path) -> _Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadTable(f"{file}: reading Parquet takes pyarrow (pip install pyarrow)") from None
    try:
        values = parquet.read_table(file).to_pydict()
    except (ArrowException, ValueError) as error:
        raise BadTable(f"{file}: {error}") from None
    return _Columns(str(file), values, lambda row: f"{file}, row {row}")
