"""Makes incidents of rows as they arrive, as lines of text for a person."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from models.parts.incident_rule import Rule
from service.cli.score_result import ScoredRow, changes, sentence
from service.counted import counted
from service.domain.incident_fold import Fold


@dataclass(slots=True)
class LiveIncidents:
    """Makes incidents of rows as they arrive, by the given rule. Times are shown in `zone`."""

    rule: Rule
    zone: tzinfo = UTC
    rows: int = 0
    alarms: int = 0
    ignored: int = 0
    _fold: Fold = field(default_factory=Fold)
    _row: ScoredRow | None = None

    def add(self, row: ScoredRow) -> Iterator[str]:
        """Add the next row. Yield the lines to print."""
        if row.is_anomaly is None:
            return
        self._row = row
        self.rows += 1
        self.alarms += row.is_anomaly
        self.ignored += row.state == "ignored"
        for change in changes(self._fold, self.rule, row):
            if change.reported:
                yield f"{change.kind}: {sentence(change.incident, row, self.zone)}"

    def end(self) -> Iterator[str]:
        """Yield the lines to print when there are no more rows."""
        if self._row is not None:
            for incident in self._fold.open():
                yield f"still open: {sentence(incident, self._row, self.zone)}"
        more = f"; {self.ignored:,} more are ignored by the config" if self.ignored else ""
        yield f"{self.alarms:,} of {counted(self.rows, 'row')} were anomalies{more}"
