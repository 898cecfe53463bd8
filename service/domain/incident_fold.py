"""Turns judged rows into incidents: one pure fold over the reports of the API processes."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from models.parts.incident_rule import (
    RECENT,
    WIDER,
    Rule,
    belongs,
    ends_in_silence,
    is_lasting,
    opens,
    opens_another,
)
from service.domain.incident import (
    DismissedPattern,
    Incident,
    KeptRow,
    explains_better,
    leads,
)
from service.domain.incident_source import AHEAD_SECONDS, WAITING, Source, StandingLevel

SOURCES = 1000  # followed at once; above that, the source that is silent for longest is dropped
OLD_SECONDS = 3600.0  # an incident pages nobody if its rows are older than this at arrival
_SMOOTH = 0.2  # weight of the latest interval in the usual interval between two rows


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one source, in order, that one API process judged and reported together.

    `rows` is their number. `positions` (a,) are the ascending positions of alarming rows, and
    `times` and `severities` belong to these. `last` is the latest time of any row. `kept_rows` are
    the kept rows with their positions. `unlisted` counts the alarming rows without a position.
    `heights` (a,) are those of `incident_rule.heights`; if there are none, the severities are used
    instead.
    """

    source: str
    rows: int
    last: float
    positions: tuple[int, ...] = ()
    times: tuple[float, ...] = ()
    severities: tuple[float, ...] = ()
    kept_rows: tuple[tuple[int, KeptRow], ...] = ()
    unlisted: int = 0
    heights: tuple[float, ...] = ()


class IncidentChange(msgspec.Struct, frozen=True):
    """A change of an incident, and the kept rows that it gained.

    `paged`: it was extended, and from now on it pages people. `settled`: it closed because it
    became a lasting state. `closed` follows when that state is over.
    """

    kind: Literal["opened", "extended", "paged", "settled", "closed"]
    incident: Incident
    rows: tuple[KeptRow, ...] = ()

    @property
    def reported(self) -> bool:
        """Whether people are told. They are not told of more rows or of a lasting state's end."""
        ended = self.kind == "closed" and self.incident.settled
        return self.kind != "extended" and not ended


class Conditions(msgspec.Struct, frozen=True):
    """What decides, beside the rows, whether they make an incident and whether it pages people.

    `now` is the present time, `alpha` the p-value at the threshold. `version` and `generation`
    are those that judged the rows. Rows that one of `dismissed_patterns` covers page nobody.
    """

    rule: Rule
    now: float
    alpha: float
    version: int
    generation: int
    muted: bool = False
    dismissed_patterns: tuple[DismissedPattern, ...] = ()


class Fold(msgspec.Struct):
    """The open incidents of one detector, by source; `opened` counts all incidents so far."""

    opened: int = 0
    sources: dict[str, Source] = msgspec.field(default_factory=dict)

    def take(self, block: Block, conditions: Conditions) -> list[IncidentChange]:
        """Add a block of rows; return the changes in order, joined for each incident."""
        source = self.sources.get(block.source)
        if source is None:
            if not block.positions:
                return []  # nothing to remember
            source = self.sources[block.source] = Source()
        source.forget_future(conditions.now)
        block = _without_future(block, conditions.now)
        changes: list[IncidentChange] = list(self._take_alarms(source, block, conditions))
        if source.last is not None and block.last > source.last:
            interval = (block.last - source.last) / block.rows
            if source.interval is not None:
                interval = source.interval + _SMOOTH * (interval - source.interval)
            source.interval = interval
        source.rows += block.rows
        source.last = max(source.last or block.last, block.last)
        source.heard = conditions.now
        latest = source.latest
        quiet = source.rows if latest is None else source.rows - 1 - latest
        changes += self._end_what_is_over(source, source.rows, source.last, conditions)
        if source.open is None and source.level is None and quiet >= conditions.rule.m:
            del self.sources[block.source]
        return _joined_by_incident(changes + self._drop_silent(conditions.now))

    def sweep(self, conditions: Conditions) -> list[IncidentChange]:
        """Drop sources that send nothing any more; return the changes of their incidents."""
        changes: list[IncidentChange] = []
        for name, source in list(self.sources.items()):
            source.forget_future(conditions.now)
            if ends_in_silence(conditions.rule, conditions.now - source.heard, source.interval):
                changes += self._end_source(source, conditions.now)
                del self.sources[name]
        return changes

    def open(self) -> list[Incident]:
        """Return the incidents that are open."""
        return [source.open for source in self.sources.values() if source.open is not None]

    def incident_id(self, name: str) -> str:
        """Return the id of the incident of the source `name`, open or a lasting state, or ''."""
        source = self.sources.get(name, Source())
        incident = source.open or (source.level.incident if source.level else None)
        return incident.id if incident else ""

    def _take_alarms(
        self, source: Source, block: Block, conditions: Conditions
    ) -> Iterator[IncidentChange]:
        kept = dict(block.kept_rows)
        heights = block.heights or block.severities
        for position, at, severity, height in zip(
            block.positions, block.times, block.severities, heights, strict=True
        ):
            row = source.rows + position
            yield from self._end_what_is_over(source, row, at, conditions)
            if source.belongs_to_state(conditions.rule, row, at, severity, height):
                continue
            follows = None if source.level is None else source.level.incident.start
            another = source.open is not None and opens_another(height, source.levels)
            if another:
                change = self._close(source, conditions.now)
                follows = change.incident.start
                yield change
                source.alarms, source.times, source.waiting = [], [], []
            source.alarms = [*source.alarms[-WAITING:], row]
            source.times = [*source.times[-WAITING:], at]
            if position in kept:
                source.waiting = [*source.waiting[-WAITING:], kept[position]]
            measured = source.measured(severity, height)
            if source.open is not None:
                source.levels = [*source.levels[1 - RECENT :], height]
                if belongs(conditions.rule, source.alarms, measured):
                    yield from self._extend_open(source, severity, conditions)
            elif another or opens(conditions.rule, source.alarms, measured):
                yield self._open(source, block.source, severity, follows, conditions)
        if source.open and block.unlisted:
            count = source.open.count + block.unlisted
            source.open = msgspec.structs.replace(source.open, count=count)
            yield IncidentChange("extended", source.open)

    def _end_what_is_over(
        self, source: Source, row: int, at: float, conditions: Conditions
    ) -> Iterator[IncidentChange]:
        """End the incident and the lasting state if they are over before a row; yield the changes.

        `row` is the number of the row, and `at` its time.
        """
        rule = conditions.rule
        if source.open and source.is_over(rule, row, at):
            yield self._close(source, conditions.now)
        if source.level and source.level.is_over(rule, row, at):
            yield _end_state(source)

    def _extend_open(
        self, source: Source, severity: float, conditions: Conditions
    ) -> Iterator[IncidentChange]:
        """Add the latest alarming row to the open incident, with earlier rows that belong to it."""
        assert source.open is not None, "only an open incident goes on"
        row, at = source.alarms[-1], source.times[-1]
        first = bisect_left(source.alarms, max(source.row, row - WIDER * conditions.rule.m) + 1)
        since = min(source.times[first:])
        rows = tuple(row for row in source.waiting if row.at >= since)
        for kept_row in rows:
            source.open = _explained_by(source.open, kept_row)
        if severity > source.open.peak:  # the row itself is not kept
            p_value = conditions.alpha**severity
            source.open = msgspec.structs.replace(source.open, peak=severity, p_value=p_value)
        count = source.open.count + len(source.alarms) - first
        end = max(source.open.end, *source.times[first:])
        source.open = msgspec.structs.replace(source.open, count=count, end=end)
        source.row, source.at, source.waiting = row, at, []
        yield IncidentChange("extended", source.open, rows)
        if _pages_now(source.open, at, conditions):
            source.open = msgspec.structs.replace(source.open, pages=True)
            yield IncidentChange("paged", source.open)
        if is_lasting(source.open.count, at - source.open.start, source.levels):
            yield from self._settle(source, conditions.now)

    def _open(
        self,
        source: Source,
        name: str,
        severity: float,
        follows: float | None,
        conditions: Conditions,
    ) -> IncidentChange:
        rule, row = conditions.rule, source.alarms[-1]
        first = next(i for i, alarm in enumerate(source.alarms) if row - alarm < rule.m)
        # The clock of a client may be set back between two rows.
        start, end = min(source.times[first:]), max(source.times[first:])
        rows = tuple(row for row in source.waiting if row.at >= start)
        peak = max(rows, key=lambda row: row.severity, default=None)
        explaining = _explaining_row(rows)
        leading = leads(explaining.leading) if explaining else ()
        similar = (p.id for p in conditions.dismissed_patterns if p.covers(leading))
        like = next(similar, None)
        old = conditions.now - source.times[-1] > OLD_SECONDS
        self.opened += 1
        source.open = Incident(
            id=f"i{self.opened}-{round(start * 1000)}",
            source=name,
            start=start,
            end=end,
            peak=max(severity, peak.severity if peak else 0.0),
            p_value=peak.p_value if peak else conditions.alpha**severity,
            count=len(source.alarms) - first,
            version=conditions.version,
            generation=conditions.generation,
            leading=leading,
            regime=explaining.regime if explaining else 0,
            explained=explaining.severity if explaining else 0.0,
            pages=not (old or like or conditions.muted),
            like=like,
            follows=follows,
        )
        source.row, source.at = row, source.times[-1]
        source.waiting, source.levels = [], []
        return IncidentChange("opened", source.open, rows)

    def _close(self, source: Source, now: float) -> IncidentChange:
        assert source.open is not None, "only an open incident closes"
        over = msgspec.structs.replace(source.open, closed=now)
        source.open = None
        return IncidentChange("closed", over)

    def _settle(self, source: Source, now: float) -> Iterator[IncidentChange]:
        """Close the open incident as a lasting state; the source is at its level from now on."""
        if source.level is not None:
            yield _end_state(source)
        row, at, levels = source.row, source.at, source.levels
        over = self._close(source, now).incident
        over = msgspec.structs.replace(over, settled=True)
        source.level = StandingLevel(over, max(levels), levels, row, at, source.alarms, levels)
        source.alarms, source.times, source.waiting = [], [], []
        yield IncidentChange("settled", over)

    def _end_source(self, source: Source, now: float) -> Iterator[IncidentChange]:
        """End the incident and the lasting state of a dropped source; yield the changes."""
        if source.open:
            yield self._close(source, now)
        if source.level:
            yield _end_state(source)

    def _drop_silent(self, now: float) -> list[IncidentChange]:
        """Drop sources if too many are followed; return the changes of their incidents."""
        changes: list[IncidentChange] = []
        while len(self.sources) > SOURCES:
            name = min(self.sources, key=lambda source: self.sources[source].heard)
            changes += self._end_source(self.sources[name], now)
            del self.sources[name]
        return changes


def _end_state(source: Source) -> IncidentChange:
    """End the lasting state of the source; return the change."""
    assert source.level is not None, "only a source with a lasting state can leave it"
    over, source.level = source.level.incident, None
    return IncidentChange("closed", over)


def _explained_by(incident: Incident, row: KeptRow) -> Incident:
    """Return the incident with one more kept row, which may be its peak or explain it better."""
    news: dict[str, object] = {}
    if row.severity > incident.peak:
        news |= {"peak": row.severity, "p_value": row.p_value}
    if explains_better(row, incident.explained):
        leading = leads(row.leading)
        news |= {"leading": leading, "regime": row.regime, "explained": row.severity}
    return msgspec.structs.replace(incident, **news)


def _explaining_row(rows: Sequence[KeptRow]) -> KeptRow | None:
    """Return the row that explains `rows`, given in order; None if none has leading features."""
    explaining, explained = None, 0.0
    for row in rows:
        if explains_better(row, explained):
            explaining, explained = row, row.severity
    return explaining


def _without_future(block: Block, now: float) -> Block:
    """Return the block and its kept rows with no time after `now`, if a clock is far ahead."""
    if block.last <= now + AHEAD_SECONDS:
        return block
    times, replace = tuple(min(at, now) for at in block.times), msgspec.structs.replace
    kept_rows = tuple((i, replace(row, at=min(row.at, now))) for i, row in block.kept_rows)
    return replace(block, last=now, times=times, kept_rows=kept_rows)


def _pages_now(incident: Incident, at: float, conditions: Conditions) -> bool:
    """Return whether an incident that has paged nobody must page now.

    Its earlier rows were old, or the detector was muted.
    """
    silent_so_far = not incident.pages and incident.like is None
    return silent_so_far and not conditions.muted and conditions.now - at <= OLD_SECONDS


def _joined_by_incident(changes: Sequence[IncidentChange]) -> list[IncidentChange]:
    """Return the changes with those of one incident joined: its latest state, and all its rows.

    A change that ends an incident is not joined with the earlier ones.
    """
    joined: dict[tuple[str, str], IncidentChange] = {}
    for change in changes:
        key = (change.incident.id, change.kind if change.kind in {"settled", "closed"} else "")
        before = joined.get(key)
        if before is None:
            joined[key] = change
        else:
            kind = change.kind if before.kind == "extended" else before.kind
            joined[key] = IncidentChange(kind, change.incident, before.rows + change.rows)
    return list(joined.values())
