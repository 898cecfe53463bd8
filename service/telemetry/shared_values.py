"""The numbers of this process's metrics, in memory, with a copy for the scrapes of others.

Counting never waits for a disk. No number is mapped to a file, because writing to a mapped file
kills the process once the disk is full. A copy that fails is made again with the next one.

An API process is identified by its place among its siblings, not by its process id. Its successor
goes on with its numbers, so that sums never fall and files do not accumulate. Each place has two
pairs of files (`service.metric_files`): `.names` has one JSON array in each line, `.values` has
float64 numbers in the same order.
"""

import array
import contextlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from prometheus_client import Metric, values

from service import metric_files
from service.metric_files import LIFETIMES, LIVE, TOTAL, place_of
from service.telemetry.exposition import batched

_TOGETHER = 50  # numbers in one piece of the page: a quarter of a millisecond
_HISTOGRAMS = 4  # histograms in one piece of the page: also a quarter of a millisecond


class Name(NamedTuple):
    """The name of one number: `sample` of the family `metric` of type `kind`, with its labels."""

    kind: str
    metric: str
    sample: str
    labels: tuple[tuple[str, str], ...]
    help: str


class Numbers:
    """Numbers in memory, and their copy in `<stem>.names` and `<stem>.values`."""

    def __init__(self, stem: Path) -> None:
        self._names_file = stem.with_name(stem.name + ".names")
        self._values_file = stem.with_name(stem.name + ".values")
        self.names: list[Name | None] = []  # None: the number was forgotten, its index is free
        self.values = array.array("d")
        self._indices: dict[Name, int] = {}
        self._labelled: dict[tuple[str, str], list[Name]] = {}  # by first label
        self._named = 0  # how many names are in the file
        self._written = 0  # bytes of these lines
        self._rewrite = False  # whether a name in the file changed
        # An index is used again only after its zero was copied, so no sibling reads an old number.
        self._forgotten: list[int] = []
        self._free: list[int] = []
        self._copied = b""
        for name, value in _read(self._names_file, self._values_file):
            self.values[self.index_of(name)] = value

    def index_of(self, name: Name) -> int:
        """Return the index of the number `name` in `values`. A new number is created."""
        index = self._indices.get(name)
        if index is not None:
            return index
        if name.labels:
            self._labelled.setdefault(name.labels[0], []).append(name)
        if self._free:
            index = self._indices[name] = self._free.pop()
            self._set_name(index, name)
        else:
            index = self._indices[name] = len(self.names)
            self.names.append(name)
            self.values.append(0.0)
        return index

    def forget(self, label: tuple[str, str], kind: str | None = None) -> None:
        """Drop every number with this first label, of one kind of metric or of all kinds."""
        names = self._labelled.get(label, [])
        for name in [name for name in names if kind in (None, name.kind)]:
            names.remove(name)
            index = self._indices.pop(name)
            self.values[index] = 0.0
            self._set_name(index, None)
            self._forgotten.append(index)
        if not names:
            self._labelled.pop(label, None)

    def _set_name(self, index: int, name: Name | None) -> None:
        self.names[index] = name
        self._rewrite = True

    def all(self) -> Iterator[tuple[Name, float]]:
        """Yield every number with its name."""
        for name, value in zip(list(self.names), self.values[:], strict=True):
            if name is not None:
                yield name, value

    def copy(self) -> None:
        """Copy the changes to the files. Raises OSError; the next call then copies all numbers."""
        forgotten, changed = len(self._forgotten), self._rewrite
        values, intact = self.values.tobytes(), self._intact()
        if values == self._copied and intact and not changed:
            return
        self._copied = b""
        self._names_file.parent.mkdir(mode=0o700, exist_ok=True)
        self._copy_names(changed, self._named if intact and not changed else 0)
        _write(self._values_file, values, 0)
        self._copied = values
        self._free += self._forgotten[:forgotten]
        del self._forgotten[:forgotten]

    def _copy_names(self, changed: bool, first: int) -> None:
        """Append the names from `first` on. If an older name `changed`, replace the whole file."""
        if changed:
            self._rewrite = False  # reset before the names are read: another thread may change them
        new = self.names[first:]
        lines = b"".join(map(_line, new))
        start = self._written if first else 0
        try:
            if changed:
                _replace(self._names_file, lines)
            else:
                _write(self._names_file, lines, start)
        except OSError:
            self._rewrite |= changed
            raise
        self._named, self._written = first + len(new), start + len(lines)

    def _intact(self) -> bool:
        """Return whether the files still have the sizes that this process left."""
        try:
            sizes = self._names_file.stat().st_size, self._values_file.stat().st_size
        except OSError:
            return False
        return sizes == (self._written, len(self._copied) or sizes[1])

    def remove(self) -> None:
        """Remove the files."""
        for file in (self._names_file, self._values_file):
            file.unlink(missing_ok=True)


class Shared:
    """The numbers of the API process at `place`, and those of its siblings in `folder`."""

    def __init__(self, folder: Path, place: int) -> None:
        self.folder = folder
        self.place = str(place)
        with contextlib.suppress(OSError):  # remove the gauges of a killed predecessor
            metric_files.remove(folder, place=place, lifetime=LIVE)
        self.numbers = {
            lifetime: Numbers(metric_files.stem(folder, place, lifetime)) for lifetime in LIFETIMES
        }
        # prometheus_client has no argument for the class of a metric's numbers: a metric takes
        # this global when it is made.
        values.ValueClass = self._value_class()

    def _value_class(self) -> type:
        shared = self

        class Value:
            """One number of a metric, with the interface that prometheus_client expects."""

            _multiprocess = True

            def __init__(
                self, kind: str, metric: str, sample: str, labels: Iterable[str],
                label_values: Iterable[str], text: str, **_: Any,
            ) -> None:  # fmt: skip
                labelled = tuple(zip(labels, label_values, strict=True))
                name = Name(kind, metric, sample, labelled, text)
                self._numbers = shared.numbers[LIVE if kind == "gauge" else TOTAL]
                self._index = self._numbers.index_of(name)

            def inc(self, amount: float) -> None:
                self._numbers.values[self._index] += amount

            def set(self, value: float, timestamp: float | None = None) -> None:
                del timestamp
                self._numbers.values[self._index] = value

            def get(self) -> float:
                return self._numbers.values[self._index]

            def get_exemplar(self) -> None:
                return None  # our metrics have no exemplars

        return Value

    def copy(self) -> None:
        """Copy this process's numbers to the folder. Raises OSError."""
        for numbers in self.numbers.values():
            numbers.copy()

    def forget(self, label: tuple[str, str], kind: str | None = None) -> None:
        """Drop numbers of this process. See `Numbers.forget`."""
        for numbers in self.numbers.values():
            numbers.forget(label, kind)

    def values_of(self, label: str) -> set[str]:
        """Return all values of a label in this process's numbers, a predecessor's included."""
        names = [name for numbers in self.numbers.values() for name in numbers.names if name]
        return {value for name in names for key, value in name.labels if key == label}

    def close(self) -> None:
        """Copy for the last time, and remove this process's gauges. Raises OSError."""
        self.numbers[TOTAL].copy()
        self.numbers[LIVE].remove()

    def slices(self) -> Iterator[Metric | None]:
        """Yield the sums over all places, and the gauges of each living process. See `Sliced`."""
        sums: dict[Name, float] = {}
        entries = chain(self._of_siblings(TOTAL), self.numbers[TOTAL].all())
        for batch in batched(entries, _TOGETHER):
            for name, value in batch:
                sums[name] = sums.get(name, 0.0) + value
            yield None
        gauges = (
            (_of_process(name, self.place), value) for name, value in self.numbers[LIVE].all()
        )
        yield from _families(chain(sums.items(), self._of_siblings(LIVE), gauges))

    def _of_siblings(self, lifetime: str) -> Iterator[tuple[Name, float]]:
        for names in sorted(self.folder.glob(f"anamnesis-*-{lifetime}.names")):
            place = place_of(names)
            if place == self.place:
                continue
            for name, value in _read(names, names.with_suffix(".values")):
                yield (_of_process(name, place) if lifetime == LIVE else name), value


def _of_process(name: Name, place: str) -> Name:
    return name._replace(labels=(*name.labels, ("process", place)))


def _read(names: Path, numbers: Path) -> Iterator[tuple[Name, float]]:
    """Yield the numbers in a pair of files. Parts that cannot be read are left out."""
    try:
        *lines, _ = names.read_bytes().split(b"\n")
        content = numbers.read_bytes()
    except OSError:
        return
    values = np.frombuffer(content[: len(content) // 8 * 8], np.float64).tolist()
    for line, value in zip(lines, values, strict=False):
        try:
            kind, metric, sample, labels, text = orjson.loads(line)
            yield Name(kind, metric, sample, tuple((k, v) for k, v in labels), text), value
        except (ValueError, TypeError):  # a forgotten name is a line with null
            continue


def _families(samples: Iterator[tuple[Name, float]]) -> Iterator[Metric]:
    bounds: dict[float, str] = {}
    buckets: dict[Name, dict[float, float]] = {}
    for batch in batched(samples, _TOGETHER):
        pieces: dict[str, Metric] = {}
        for name, value in batch:
            if name.sample.endswith("_bucket"):
                *labels, (_, bound) = name.labels
                bounds[float(bound)] = bound  # as prometheus_client writes it
                series = name._replace(sample=name.metric, labels=tuple(labels))
                buckets.setdefault(series, {})[float(bound)] = value
            else:
                _piece_of(pieces, name).add_sample(name.sample, dict(name.labels), value)
        yield from pieces.values()
    for histograms in batched(iter(buckets.items()), _HISTOGRAMS):
        pieces = {}
        for series, counts in histograms:
            piece, total = _piece_of(pieces, series), 0.0
            for upper, count in sorted(counts.items()):
                total += count
                labels_of_bucket = {**dict(series.labels), "le": bounds[upper]}
                piece.add_sample(f"{series.metric}_bucket", labels_of_bucket, total)
            piece.add_sample(f"{series.metric}_count", dict(series.labels), total)
        yield from pieces.values()


def _piece_of(pieces: dict[str, Metric], name: Name) -> Metric:
    """Return the piece of `name`'s family from `pieces`. A new one is begun."""
    if name.metric not in pieces:
        pieces[name.metric] = Metric(name.metric, name.help, name.kind)
    return pieces[name.metric]


def _line(name: Name | None) -> bytes:
    return orjson.dumps(None if name is None else tuple(name)) + b"\n"


def _replace(file: Path, content: bytes) -> None:
    """Replace the content of `file` in one step, so that readers never see a part."""
    written = file.with_name(file.name + ".new")
    _write(written, content, 0)
    written.replace(file)


def _write(file: Path, content: bytes, offset: int) -> None:
    """Write `content` at `offset` of `file` and end the file there."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        done = 0
        while done < len(content):
            done += os.pwrite(handle, content[done:], offset + done)
        os.ftruncate(handle, offset + len(content))
    finally:
        os.close(handle)
