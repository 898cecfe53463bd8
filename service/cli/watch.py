"""The command `watch`: rows judged as they come, and incidents as they open and close."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Url
from service.cli.vectors import (
    Detector,
    Drop,
    File,
    Source,
    Time,
    TimeFormat,
    Timezone,
    config_of,
    located,
    options_of,
    tell,
)

if TYPE_CHECKING:
    from service.cli.found import Incident, Row

_WHY = 3  # contributions asked for of each row


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(watch)


def watch(
    file: File,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    drop: Drop = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Judge the rows too that the file has already.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Judge the rows of a file as it grows, and print incidents as they open and close.

    CSV or an object of JSON a line; - reads standard input. What the file has already is context
    alone. Ctrl-C ends it.
    """
    from service.cli import found
    from service.cli.sheet import Sheet
    from service.client.stream import Stream

    options = options_of(time, source, drop, time_format, timezone)
    with Sheet(file, options, follow=True) as sheet, console.client(url, key) as client:
        config = config_of(client, detector)
        stream, columns = Stream(client, detector, config), sheet.matched(config)
        tell(sheet, columns)
        live = Live()
        try:
            for rows in sheet.rows(columns, gaps=config.get("missing") == "impute"):
                if rows.places[0] <= sheet.lines_before and not from_start:
                    stream.remember(rows.X, rows.times, rows.sources)
                    continue
                with located(rows, columns):
                    answer = stream.score(rows.X, rows.times, rows.sources, explain=_WHY)
                for row in found.rows(rows, answer):
                    if as_json:
                        console.show_json(row.to_dict())
                    else:
                        for line in live.add(row):
                            typer.echo(line)
        except KeyboardInterrupt:
            pass
    if not as_json:
        for line in live.end():
            typer.echo(line)


@dataclass(slots=True)
class Live:
    """The incidents that are open, one a source: opened by an alarm, closed by quiet rows."""

    rows: int = 0
    alarms: int = 0
    _open: dict[str | None, "Incident"] = field(default_factory=dict)
    _quiet: dict[str | None, int] = field(default_factory=dict)

    def add(self, row: "Row") -> Iterator[str]:
        """Take note of the next row; yield what there is to print."""
        from service.cli.found import QUIET_ROWS, Incident, sentence

        if row.is_anomaly is None:
            return
        self.rows += 1
        incident = self._open.get(row.source)
        if row.is_anomaly:
            self.alarms += 1
            self._quiet[row.source] = 0
            if incident is None:
                self._open[row.source] = Incident(row.source, row, row, row, row)
                yield f"opened: {sentence(self._open[row.source])}"
            else:
                incident.extend(row)
        elif incident is not None:
            self._quiet[row.source] += 1
            if self._quiet[row.source] > QUIET_ROWS:
                del self._open[row.source], self._quiet[row.source]
                yield f"closed: {sentence(incident)}"

    def end(self) -> Iterator[str]:
        """Yield what there is to print when nothing more comes."""
        from service.cli.found import sentence

        for incident in self._open.values():
            yield f"still open: {sentence(incident)}"
        yield f"{self.alarms} of {self.rows} rows were anomalies"
