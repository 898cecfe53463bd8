"""What `score` found: rows, the worst of them, and the alarming rows that belong together."""

import csv
import heapq
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from service.cli import console
from service.cli.sheet import Rows
from service.domain.incident import speaks
from service.json_value import JsonObject

if TYPE_CHECKING:
    from service.client.answers import Attribution, ScoreAnswer

QUIET_ROWS = 10  # rows of a source without an alarm that end an incident
_MOST_INCIDENTS = 10  # in the list for people
_ADDED = ("score", "p_value", "severity", "is_anomaly", "state", "why")


@dataclass(frozen=True, slots=True)
class Row:
    """One judged row; the numbers are None where it was not judged."""

    unit: str
    place: int
    version: int
    score: float | None
    p_value: float | None
    severity: float | None
    is_anomaly: bool | None
    state: str | None
    time: float | None
    source: str | None
    why: str
    cells: Sequence[str]

    def to_dict(self) -> JsonObject:
        """Return it as one JSON object."""
        found: JsonObject = {
            self.unit: self.place,
            "version": self.version,
            "score": self.score,
            "p_value": self.p_value,
            "severity": self.severity,
            "is_anomaly": self.is_anomaly,
        }
        told = {"state": self.state, "time": _moment(self.time), "source": self.source}
        if self.is_anomaly:
            told["why"] = self.why or None
        return found | {name: value for name, value in told.items() if value is not None}


def rows(sent: Rows, answer: "ScoreAnswer") -> Iterator[Row]:
    """Yield the rows of a file with their entries of a scoring answer."""
    n = len(sent.places)
    states: Sequence[str | None] = answer.get("states") or [None] * n
    attributions = answer.get("attributions") or [[]] * n
    for i in range(n):
        yield Row(
            sent.unit,
            sent.places[i],
            answer["version"],
            answer["scores"][i],
            answer["p_values"][i],
            answer["severities"][i],
            answer["is_anomaly"][i],
            states[i],
            None if sent.times is None else float(sent.times[i]),
            None if sent.sources is None else sent.sources[i],
            why(attributions[i]),
            sent.cells[i],
        )


def why(attributions: "Sequence[Attribution]") -> str:
    """Return what contributed most to a score, in words."""
    if not attributions:
        return ""
    first = attributions[0]
    value, expected = (
        part if isinstance(part, str) else f"{part:.4g}"
        for part in (first["value"], first["expected"])
    )
    return f"{first['feature']} {value}, expected {expected}"


@dataclass(slots=True)
class Incident:
    """Alarming rows of one source that are near each other."""

    source: str | None
    start: Row
    end: Row
    peak: Row
    speaker: Row  # whose reason is the incident's
    alarms: int = 1

    def extend(self, row: Row) -> None:
        """Take in another alarming row."""
        self.end, self.alarms = row, self.alarms + 1
        if (row.severity or 0.0) > (self.peak.severity or 0.0):
            self.peak = row
        if speaks(row.severity or 0.0, self.speaker.severity or 0.0):
            self.speaker = row


@dataclass(slots=True)
class Found:
    """Counts, the `top` worst anomalies, and the incidents that they make."""

    top: int
    rows: int = 0
    judged: int = 0
    anomalies: int = 0
    worst: list[tuple[float, int, Row]] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    _open: dict[str | None, tuple[Incident, int]] = field(default_factory=dict)
    _seen: dict[str | None, int] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take note of the next row of the file."""
        self.rows += 1
        if row.is_anomaly is None:
            return
        self.judged += 1
        seen = self._seen[row.source] = self._seen.get(row.source, 0) + 1
        if not row.is_anomaly:
            return
        self.anomalies += 1
        heapq.heappush(self.worst, (row.severity or 0.0, -self.rows, row))
        if len(self.worst) > self.top:
            heapq.heappop(self.worst)
        incident, last = self._open.get(row.source, (None, 0))
        if incident is None or seen - last > QUIET_ROWS + 1:
            incident = Incident(row.source, row, row, row, row)
            self.incidents.append(incident)
        else:
            incident.extend(row)
        self._open[row.source] = (incident, seen)

    def show(self) -> None:
        """Write the worst anomalies and the incidents, for a person."""
        shown = [row for *_, row in sorted(self.worst, key=lambda one: -one[0])]
        if shown:
            columns = [shown[0].unit, "time", "source", "severity", "score", "p_value", "why"]
            table = [_cells(row) for row in shown]
            kept = [i for i in range(len(columns)) if any(row[i] for row in table)]
            console.show_table(
                [columns[i] for i in kept], ([row[i] for i in kept] for row in table)
            )
        worst = sorted(self.incidents, key=lambda one: -(one.peak.severity or 0.0))
        for incident in worst[:_MOST_INCIDENTS]:
            typer.echo(sentence(incident))
        if (more := len(worst) - _MOST_INCIDENTS) > 0:
            typer.echo(f"and {more} milder incidents")
        waiting = self.rows - self.judged
        typer.echo(
            f"{self.anomalies} of {self.judged} vectors are anomalies"
            + (f" in {len(self.incidents)} incidents" if self.incidents else "")
            + (f" ({self.anomalies - len(shown)} more than shown)" * (self.anomalies > len(shown)))
            + (f"; {waiting} rows were not judged" if waiting else "")
        )


def _cells(row: Row) -> list[str]:
    numbers = [f"{value or 0.0:.4g}" for value in (row.severity, row.score, row.p_value)]
    return [str(row.place), _short(row.time), row.source or "", *numbers, row.why]


def sentence(incident: Incident) -> str:
    """Return the incident in one line."""
    start, end, peak = incident.start, incident.end, incident.peak
    if start.time is not None:
        when = f"{_short(start.time)} to {_short(end.time)} UTC"
    else:
        when = f"{start.unit} {start.place} to {end.place}"
    whose = f" of {incident.source}" if incident.source else ""
    because = f": {incident.speaker.why}" if incident.speaker.why else ""
    return (
        f"incident{whose}, {when}: {incident.alarms} rows, "
        f"severity up to {peak.severity:.3g}{because}"
    )


def _short(time: float | None) -> str:
    """Return a moment in UTC as a person reads it; seconds only where there are any."""
    moment = (_moment(time) or "").rstrip("Z").replace("T", " ")
    return moment.removesuffix(":00")


def _moment(time: float | None) -> str | None:
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def writer(out: Path | None, header: Sequence[str]) -> Generator[Callable[[Row], None], None, None]:
    """Give a function that writes rows to a CSV file: the user's columns, then what was found."""
    if out is None:
        yield _nowhere
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file)
        if header:
            write.writerow([*header, *(f"anamnesis_{name}" for name in _ADDED)])

        def one(row: Row) -> None:
            values = (getattr(row, name) for name in _ADDED)
            write.writerow([*row.cells, *("" if value is None else value for value in values)])

        yield one


def _nowhere(row: Row) -> None:
    """Write a row to no file."""
    del row
