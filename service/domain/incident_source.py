"""The state of one source of rows between two blocks of its rows."""

import statistics

import msgspec

from models.parts.incident_rule import (
    AT_LEVEL,
    USUAL,
    USUAL_ROWS,
    Rule,
    belongs,
    closes,
    severity_above_level,
)
from service.domain.incident import Incident, KeptRow

WAITING = 64  # alarming rows remembered of a source, the latest
AHEAD_SECONDS = 3600.0  # a time this much later than the present comes from a clock that is wrong


class StandingLevel(msgspec.Struct, array_like=True):
    """The level of a source in a lasting state, which began as an incident.

    Rows at the level alarm but belong to no new incident, because people know of the state already.
    `incident` is the incident that became the state. `top` is the largest height of its latest rows
    at that time. `heights` are those of the latest rows at the level. `row` and `at` are
    the number and the time of the latest row that belongs to the state. `alarms` are the numbers of
    the latest alarming rows. `recent` are the heights of all latest alarming rows, at the level or
    above it. Rows of the state are seldom higher than `usual`. `rows` counts the alarming rows at
    the level, which the incident's count leaves out.
    """

    incident: Incident
    top: float
    heights: list[float]
    row: int
    at: float
    alarms: list[int] = []
    recent: list[float] = []
    usual: float = 0.0
    rows: int = 0

    @property
    def height(self) -> float:
        """The height of the level: the median of its latest rows, but not above `top`.

        A few high rows do not raise the median, so a fault soon after them is still detected.
        Without `top`, a slowly growing fault would raise the level and never be detected.
        """
        return min(self.top, statistics.median_low(self.heights[-AT_LEVEL:]))

    def record_height(self, height: float) -> None:
        """Record an alarming row at the level."""
        self.heights = [*self.heights[1 - AT_LEVEL :], height]
        self.rows += 1

    def record_alarm(self, rule: Rule, row: int, at: float, severity: float, height: float) -> None:
        """Record an alarming row, at the level or above it."""
        self.alarms = [*self.alarms[-WAITING:], row]
        self.recent = [*self.recent[1 - USUAL_ROWS - rule.m :], height]
        if belongs(rule, self.alarms, severity):
            self.row, self.at = row, at

    def learn_usual(self, rule: Rule) -> None:
        """Learn what is usual. The latest `m` alarming rows do not count: they may be a fault."""
        if earlier := sorted(self.recent[: -rule.m]):
            self.usual = earlier[int(USUAL * len(earlier))]

    def severity(self, height: float) -> float:
        """Return the severity of a row relative to the state."""
        return severity_above_level(height, self.height, self.usual)

    def is_over(self, rule: Rule, row: int, at: float) -> bool:
        """Return whether the state is over: no row has belonged to it for long enough."""
        return closes(rule, row - self.row - 1, at - self.at)


class Source(msgspec.Struct, array_like=True):
    """The state of one source.

    `rows` counts its judged rows. `alarms` are the numbers of the latest alarming rows, and `times`
    their times; rows at the level of a lasting state are not among them. `last` is the time of
    the latest row, and `heard` is when that row arrived. `interval` is the usual time between two
    rows in seconds. `waiting` are kept rows that may still belong to the open incident or to the
    next one. `levels` are the heights of the latest alarming rows of the open incident. `level` is
    set while the source is in a lasting state. `row` and `at` are the number and the time of the
    latest row that belongs to the open incident.
    """

    rows: int = 0
    alarms: list[int] = msgspec.field(default_factory=list)
    times: list[float] = msgspec.field(default_factory=list)
    last: float | None = None
    heard: float = 0.0
    interval: float | None = None
    open: Incident | None = None
    waiting: list[KeptRow] = msgspec.field(default_factory=list)
    levels: list[float] = msgspec.field(default_factory=list)
    level: StandingLevel | None = None
    row: int = -1
    at: float = 0.0

    def forget_future(self, now: float) -> None:
        """Let no time lie far ahead of `now`. Until such a time, the incident would stay open."""
        most = now + AHEAD_SECONDS
        self.heard = min(self.heard, now)
        self.last = now if self.last is not None and self.last > most else self.last
        self.at = now if self.at > most else self.at
        if self.level is not None and self.level.at > most:
            self.level.at = now

    @property
    def latest(self) -> int | None:
        """The number of the latest alarming row, None if no row alarmed."""
        alarms = [*self.alarms[-1:], *(self.level.alarms[-1:] if self.level else [])]
        return max(alarms, default=None)

    def measured(self, severity: float, height: float) -> float:
        """Return a row's severity; in a lasting state, the severity relative to its level."""
        return self.level.severity(height) if self.level else severity

    def is_over(self, rule: Rule, row: int, at: float) -> bool:
        """Return whether the open incident is over at a row with this number and time."""
        if self.row < 0:  # stored by a release in which every alarming row belonged
            self.row, self.at = self.alarms[-1], self.times[-1]
        return closes(rule, row - self.row - 1, at - self.at)

    def belongs_to_state(
        self, rule: Rule, row: int, at: float, severity: float, height: float
    ) -> bool:
        """Record an alarming row; return whether it belongs to the source's lasting state."""
        if self.level is None:
            return False
        self.level.record_alarm(rule, row, at, severity, height)
        if self.open is None:  # a fault that lasts does not become usual
            self.level.learn_usual(rule)
        belongs = self.level.severity(height) < 1.0
        if belongs:
            self.level.record_height(height)
        return belongs
