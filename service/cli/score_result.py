"""The result of `score`: the judged rows, the worst of them, and their incidents."""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from models.parts.incident_calibration import choose
from models.parts.incident_rule import Rule, heights
from service.cli import console
from service.cli.sheet import Rows, named_columns
from service.counted import counted
from service.domain.attribution import Attribution
from service.domain.incident import FOLLOWS, Incident, KeptRow, leads, number
from service.domain.incident_fold import Block, Conditions, Fold, IncidentChange
from service.json_value import JsonObject

if TYPE_CHECKING:
    from service.client.answers import DetectorStatus, ScoreAnswer
    from service.client.configs import DetectorConfig

_ALPHA = 0.01  # the rate of false alarms if the detector has no rule for incidents
_CLOSE = 300.0  # seconds without alarms that end an incident, if the config does not say
_WITHOUT, _CLOSED = "", "closed"  # the keys of rows without incident, and of closed ones
_EACH = 3  # most rows of one incident in the list for people
UNORDERED = (
    "{} rows are older than an earlier row of their source: sort the file by time, since the "
    "incidents follow its order"
)
LATE = (
    "late: not newer than the row before of its source: if several machines share the file, give "
    "--source; sort the file by time; drop double rows; if the times are local, give --timezone"
)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row with its scores. The scores are None if the row was not judged."""

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
    leading: tuple[Attribution, ...]
    cells: Sequence[str]
    height: float = 0.0  # of a row that does not alarm

    @property
    def why(self) -> str:
        """The largest contribution to the score, in words. '' if the row does not alarm."""
        return why(self.leading) if self.is_anomaly else ""

    def to_dict(self) -> JsonObject:
        """Return the row as a JSON object."""
        fields: JsonObject = {
            self.unit: self.place,
            "version": self.version,
            "score": self.score,
            "p_value": self.p_value,
            "severity": self.severity,
            "is_anomaly": self.is_anomaly,
        }
        optional = {"state": self.state, "time": _moment(self.time), "source": self.source}
        if self.is_anomaly:
            optional["why"] = self.why or None
        return fields | {name: value for name, value in optional.items() if value is not None}


# severity, minus the number of the row among all rows, and the row
_Ranked = tuple[float, int, ScoredRow]


def rows(sent: Rows, answer: "ScoreAnswer", config: "DetectorConfig") -> Iterator[ScoredRow]:
    """Yield the rows that were sent, each with its scores from the answer of the detector.

    If the columns of the detector have no names, those of the file are used.
    """
    names = sent.columns if named_columns(config) is None else ()
    n = len(sent.places)
    states: Sequence[str | None] = answer.get("states") or [None] * n
    attributions = answer.get("attributions") or [[]] * n
    severities, scores = (
        np.array([value or 0.0 for value in column])
        for column in (answer["severities"], answer["scores"])
    )
    high = heights(severities, scores, answer["threshold"], config.get("score", ""))
    for i in range(n):
        yield ScoredRow(
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
            tuple(_attribution(names, **attribution) for attribution in attributions[i]),
            sent.cells[i],
            float(high[i]),
        )


def _attribution(names: Sequence[str], feature: str, **more: Any) -> Attribution:
    """Return an attribution. The service counts columns without names from zero."""
    return Attribution(names[int(feature)] if names and feature.isdigit() else feature, **more)


def why(leading: Sequence[Attribution]) -> str:
    """Return the largest contribution to a score in words, '' if none is known."""
    first = next(iter(leads(leading)), None)
    if first is None:
        return ""
    seen, expected = first.value, first.expected
    shown = number(seen, beside=expected), number(expected, beside=seen)
    return f"{first.feature} {shown[0]}, expected {shown[1]}"


@dataclass(slots=True)
class ScoreResult:
    """Counts, the `top` worst anomalies, and the incidents that the rows make.

    At most three of these anomalies are of one incident, since a long fault would fill the list.
    `unjudged` counts the rows without numbers by their state. `ignored` counts the rows that would
    alarm without the config's `ignore`. `unordered` counts the judged rows that are older than an
    earlier row of their source. Times are shown in `zone`.
    """

    top: int
    zone: tzinfo = UTC
    rows: int = 0
    judged: int = 0
    anomalies: int = 0
    ignored: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)
    incidents: dict[str, Incident] = field(default_factory=dict)
    unordered: int = 0
    _oldest: float = math.inf
    _newest: dict[str | None, float] = field(default_factory=dict)
    _worst: dict[str, list[_Ranked]] = field(default_factory=dict)
    _fold: Fold = field(default_factory=Fold)

    def add(self, row: ScoredRow, rule: Rule) -> None:
        """Add the next row of the file. `rule` is its detector's rule for incidents."""
        self.rows += 1
        if row.is_anomaly is None:
            self.unjudged[row.state or "no numbers"] += 1
            return
        self.judged += 1
        self.ignored += row.state == "ignored"
        if row.time is not None:
            newest = self._newest.get(row.source, -math.inf)
            self.unordered += row.time < newest
            self._oldest = min(self._oldest, row.time)
            self._newest[row.source] = max(row.time, newest)
        for change in changes(self._fold, rule, row):
            self.incidents[change.incident.id] = change.incident
            if change.kind == "opened":
                for entry in self._worst.pop(_WITHOUT, []):
                    inside = _is_of(change.incident, entry[2])
                    self._keep(change.incident.id if inside else _WITHOUT, entry)
            elif change.kind == "closed":
                for entry in self._worst.pop(change.incident.id, []):
                    self._keep(_CLOSED, entry)
        if row.is_anomaly:
            self.anomalies += 1
            incident = self._fold.incident_id(row.source or "")
            self._keep(incident, (row.severity or 0.0, -self.rows, row))

    @property
    def times(self) -> tuple[float, float] | None:
        """The first and the last time of the judged rows, None if they have none."""
        return (self._oldest, max(self._newest.values())) if self._newest else None

    def _keep(self, incident: str, entry: _Ranked) -> None:
        """Keep a row if it is among the worst of its incident, of none, or of closed incidents."""
        heap = self._worst.setdefault(incident, [])
        heapq.heappush(heap, entry)
        if len(heap) > (self.top if incident in {_WITHOUT, _CLOSED} else _EACH):
            heapq.heappop(heap)

    def show(self) -> None:
        """Write the worst anomalies and the incidents to stdout, for a person."""
        ranked = itertools.chain.from_iterable(self._worst.values())
        shown = [row for *_, row in heapq.nlargest(self.top, ranked)]
        if shown:
            columns = [shown[0].unit, f"time ({self.zone})", "source", "severity", "score"]
            columns += ["p_value", "why"]
            table = [_cells(row, self.zone) for row in shown]
            kept = [i for i in range(len(columns)) if any(row[i] for row in table)]
            console.show_table(
                [columns[i] for i in kept], ([row[i] for i in kept] for row in table)
            )
        worst = sorted(self.incidents.values(), key=lambda incident: -incident.peak)
        for incident in worst[: self.top]:
            console.show(sentence(incident, shown[0], self.zone))
        if milder := worst[self.top :]:
            led = Counter(incident.features[0] for incident in milder if incident.features)
            name, most = max(led.items(), key=itemgetter(1), default=("", 0))
            by = f", {most} of them led by {name}" if 2 * most > len(milder) > 1 else ""
            typer.echo(f"and {len(milder)} milder incident{'s' * (len(milder) > 1)}{by}")
        waiting, count = self.rows - self.judged, len(self.incidents)
        inside = sum(incident.count for incident in worst)
        unshown = self.anomalies - len(shown)
        states = ", ".join(f"{n:,} {state}" for state, n in self.unjudged.most_common())
        incidents = counted(count, "incident")
        typer.echo(
            f"{self.anomalies:,} of {self.judged:,} vectors are anomalies"
            + (f" ({unshown:,} more than shown)" if unshown > 0 else "")
            + (f", {inside:,} of them in {incidents}" if count else "")
            + (f"; {self.ignored:,} more are ignored by the config" if self.ignored else "")
            + (f"; not judged: {counted(waiting, 'row')} ({states})" if waiting else "")
        )
        if self.unjudged["late"]:
            typer.echo(LATE)
        if self.unordered:
            typer.echo(UNORDERED.format(self.unordered))


def rule_of(status: "DetectorStatus | None", *, timed: bool) -> Rule:
    """Return the rule by which the service makes incidents of the detector's rows.

    If no rule is in force, or the key may not read the status, it is the rule for few calibration
    rows. If rows have no times (`timed` is False), their numbers take the place of seconds.
    """
    config = status["config"] if status else {}
    incident = config.get("incident") or {}
    seconds = float(incident.get("close_after_seconds", _CLOSE)) if timed else 0.0
    in_force = status.get("incident_rule") if status else None
    if in_force is None:
        return choose(None, 1.0, None, _ALPHA, seconds).rule
    return Rule(in_force["alarming_rows"], in_force["of_rows"], in_force["severity_alone"], seconds)


def changes(fold: Fold, rule: Rule, row: ScoredRow) -> list[IncidentChange]:
    """Return how the next judged row changes the incidents so far."""
    at = float(row.place) if row.time is None else row.time
    block = Block(row.source or "", 1, at)
    if row.is_anomaly:
        severity, p_value, score = (part or 0.0 for part in (row.severity, row.p_value, row.score))
        kept = KeptRow(str(row.place), at, severity, p_value, score, b"", row.leading)
        block = Block(block.source, 1, at, (0,), (at,), (severity,), ((0, kept),), 0, (row.height,))
    return fold.take(block, Conditions(rule, at, _ALPHA, row.version, generation=0))


def _is_of(incident: Incident, row: ScoredRow) -> bool:
    """Return whether an earlier row is of an incident that has just opened."""
    at = row.place if row.time is None else row.time
    return (row.source or "") == incident.source and at >= incident.start


def _cells(row: ScoredRow, zone: tzinfo) -> list[str]:
    numbers = [f"{value or 0.0:.4g}" for value in (row.severity, row.score, row.p_value)]
    return [str(row.place), local_time(row.time, zone), row.source or "", *numbers, row.why]


def sentence(incident: Incident, row: ScoredRow, zone: tzinfo) -> str:
    """Return a sentence about the incident, with times in `zone`. `row` is any row of its file."""
    if row.time is not None:
        began, ended = (local_time(at, zone) for at in (incident.start, incident.end))
        when = f"{began} to {ended} {zone}" if ended != began else f"{began} {zone}"
    elif incident.end != incident.start:
        when = f"{row.unit} {incident.start:.0f} to {incident.end:.0f}"
    else:
        when = f"{row.unit} {incident.start:.0f}"
    whose = f" of {incident.source}" if incident.source else ""
    because = f": {why(incident.leading)}" if incident.leading else ""
    rows = counted(incident.count, "row")
    settled = "; it went on at that level" if incident.settled else ""
    follows = ""
    if incident.follows is not None:
        unit = f"{row.unit} {incident.follows:.0f}"
        began = unit if row.time is None else local_time(incident.follows, zone)
        follows = f"; {FOLLOWS.format(began)}"
    severity = f"severity up to {incident.peak:.3g}"
    return f"incident{whose}, {when}: {rows}, {severity}{because}{settled}{follows}"


def local_time(time: float | None, zone: tzinfo) -> str:
    """Return a time in `zone` for people. Seconds are left out if they are zero."""
    if time is None:
        return ""
    return f"{datetime.fromtimestamp(time, zone):%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _moment(time: float | None) -> str | None:
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
