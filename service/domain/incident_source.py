"""What is remembered of one source of rows between two blocks of its rows."""

import statistics

import msgspec

from models.parts.incident_rule import AT_LEVEL, Rule, closes, measured
from service.domain.incident import Incident, Witness


class Level(msgspec.Struct, array_like=True):
    """The level at which a source stands since an incident became a state that lasts.

    Rows at the level alarm but belong to no new incident: people know of the state already.
    `incident` is the one that became the state, and `top` its largest severity at that time.
    `severities` are those of the latest rows at the level. `row` and `at` are the number and the
    time of the latest row that alarmed.
    """

    incident: Incident
    top: float
    severities: list[float]
    row: int
    at: float

    @property
    def height(self) -> float:
        """The severity of the level: the median of its latest rows, but not above `top`.

        A few severe rows do not raise it, so that a fault soon after them is seen too. Without
        `top`, a fault that grows slowly would raise the level and never be seen.
        """
        return min(self.top, statistics.median_low(self.severities[-AT_LEVEL:]))

    def hold(self, severity: float) -> None:
        """Take note of a row at the level."""
        self.severities = [*self.severities[1 - AT_LEVEL :], severity]

    def seen(self, row: int, at: float) -> None:
        """Take note of a row that alarmed, at the level or above it."""
        self.row, self.at = row, at

    def over(self, rule: Rule, row: int, at: float) -> bool:
        """Return whether the state is over: so many rows and so long without an alarm."""
        return closes(rule, row - self.row - 1, at - self.at)


class Source(msgspec.Struct, array_like=True):
    """What is remembered of one source.

    `rows` counts the judged rows. `alarms` are the numbers of the latest alarming rows (only those
    above the level, if there is one) and `times` their times. `last` is the time of the latest row,
    `heard` when that row arrived, `interval` the usual seconds between two rows. `waiting` are kept
    rows that may belong to the next incident. `levels` are the severities of the latest alarming
    rows of the open incident. `level` is the lasting state of the source, if it is in one.
    """

    rows: int = 0
    alarms: list[int] = msgspec.field(default_factory=list)
    times: list[float] = msgspec.field(default_factory=list)
    last: float | None = None
    heard: float = 0.0
    interval: float | None = None
    open: Incident | None = None
    waiting: list[Witness] = msgspec.field(default_factory=list)
    levels: list[float] = msgspec.field(default_factory=list)
    level: Level | None = None

    @property
    def latest(self) -> int | None:
        """The number of the latest row that alarmed, None where none did."""
        alarms = [*self.alarms[-1:], *([self.level.row] if self.level else [])]
        return max(alarms, default=None)

    def measured(self, severity: float) -> float:
        """Return a severity relative to the level; 1 or more is above the level."""
        return measured(severity, self.level.height if self.level else None)

    def stands_at(self, row: int, at: float, severity: float) -> bool:
        """Take an alarming row; return whether it belongs to the lasting state of the source."""
        if self.level is None:
            return False
        self.level.seen(row, at)
        belongs = self.measured(severity) < 1.0
        if belongs:
            self.level.hold(severity)
        return belongs
