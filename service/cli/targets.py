"""Finds the detectors for the rows of a file: one, or one for each value of a column."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models.columns import quoted
from service.cli import console
from service.cli.sheet import Rows, Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options
from service.client import Refused
from service.client.configs import DetectorConfig
from service.client.stream import Stream, config_in_force

if TYPE_CHECKING:
    from service.client import Client
    from service.client.answers import DetectorStatus

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 64  # most characters of the entity in a detector's name

Columns = list[tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class Target:
    """A detector to which rows are sent. `status` is None if the key may not read it.

    `columns` are the detector's columns, found by name in the file, in the detector's order. None
    means that columns go by position.
    """

    name: str
    status: "DetectorStatus | None"
    config: DetectorConfig
    stream: Stream
    columns: Columns

    @property
    def gaps(self) -> bool:
        """Whether a row may lack values."""
        return self.config.get("missing") == "impute"


def grouped(options: Options, group_by: str | None) -> Options:
    """Return the options for a file whose column `group_by` names the detector of each row."""
    if group_by is None or group_by == options.source:
        return options
    if options.source is None:
        return replace(options, source=group_by)
    return replace(options, drop=(*options.drop, group_by))


class Targets:
    """Finds the detector of each row. `find` returns the service's state of a detector by name.

    `streams` are those of the files before, whose last rows are context of the first rows of this
    file. New streams are added to them.
    """

    def __init__(
        self,
        client: "Client",
        detector: str,
        sheet: Sheet,
        group_by: str | None,
        find: Callable[[str], tuple["DetectorStatus | None", DetectorConfig]],
        streams: dict[str, Stream] | None = None,
    ) -> None:
        self._client, self._detector, self._sheet, self._find = client, detector, sheet, find
        self._group_by, self._streams = group_by, {} if streams is None else streams
        self._by_name: dict[str, Target] = {}
        self._entities: dict[str, str] = {}
        if group_by is None:
            self.first = self._target(detector)
            return
        if sheet.first is None:
            raise BadTable(f"{sheet.file}: --group-by needs columns with names")
        self._place = sheet.place(group_by)
        line, value = sheet.first.lines[0], sheet.first.rows[0][self._place].strip()
        self.first = self._target(self._name(value, f"{sheet.file}, line {line}"))

    @property
    def grouped(self) -> bool:
        """Whether a column names the detector of each row."""
        return self._group_by is not None

    @property
    def all(self) -> list[Target]:
        """The detectors that have got rows, in the order of their first rows."""
        return list(self._by_name.values())

    def split(self, rows: Rows) -> Iterator[tuple[Target, Rows, list[int]]]:
        """Yield for each detector its rows and their positions in `rows`."""
        if not len(rows.X):
            return
        if self._group_by is None:
            yield self.first, rows, list(range(len(rows.X)))
            return
        by_value: dict[str, list[int]] = {}
        for i, cells in enumerate(rows.cells):
            by_value.setdefault(cells[self._place].strip(), []).append(i)
        named = [(self._name(value, rows.where(at[0])), at) for value, at in by_value.items()]
        for name, places in named:
            yield self._target(name), rows.at(places), places

    def remember(self, rows: Rows) -> None:
        """Keep the rows as context for later rows of their detectors. This sends nothing."""
        for target, part, _ in self.split(rows):
            target.stream.remember(part.X, part.times, part.sources)

    def _name(self, value: str, place: str) -> str:
        entity = _NOT_IN_A_NAME.sub("_", value)
        if not 1 <= len(entity) <= _LONGEST:
            raise BadTable(
                f"{place}, column {self._group_by}: {quoted([value])} gives no name for a "
                f"detector, which must have 1 to {_LONGEST} characters"
            )
        if self._entities.setdefault(entity, value) != value:
            both = quoted([self._entities[entity], value])
            raise BadTable(
                f"{place}, column {self._group_by}: {both} give the same detector name; rename one"
            )
        return f"{self._detector}:{entity}"

    def _target(self, name: str) -> Target:
        if name not in self._by_name:
            status, config = self._find(name)
            columns = self._sheet.matched(config)
            if self._by_name and columns != self.first.columns:
                raise BadTable(
                    f"{name} and {self.first.name} have different columns: use one file for each"
                )
            if name not in self._streams:
                self._streams[name] = Stream(self._client, name, config)
            stream = self._streams[name]
            self._by_name[name] = Target(name, status, config, stream, columns)
        return self._by_name[name]


def read_detector(client: "Client", name: str) -> tuple["DetectorStatus | None", DetectorConfig]:
    """Return the detector's status, None if the key may not read it, and its config.

    The config has the context in force. It is empty if there is no status.
    """
    try:
        status = client.detector(name)
    except Refused as error:
        if not str(error.problem.get("type")).endswith("/forbidden"):  # of a proxy, or the Host
            raise
        console.complain("the key may not read the config, so the file's columns are used in order")
        return None, DetectorConfig()
    return status, config_in_force(status)


def tell(sheet: Sheet, columns: Columns) -> None:
    """Write what is unusual about a file, and whether its columns go by position."""
    for note in sheet.notes:
        console.complain(f"{sheet.file}: {note}")
    if columns is None and sheet.names is not None:
        console.complain(
            f"{sheet.file}: the detector's columns have no names, so the file's are used in order"
        )


def tell_categories(names: Sequence[str], columns: Columns) -> None:
    """Say which of `names` are not categories of a detector that exists with these `columns`."""
    types = dict(columns or ())
    if others := [name for name in names if types.get(name) != "category"]:
        console.complain(
            f"--category has no effect on a detector that exists: {quoted(others)} "
            f"{'is not a category' if len(others) == 1 else 'are not categories'} of it. To change "
            "that, make a new detector"
        )
