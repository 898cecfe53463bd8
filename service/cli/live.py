"""The incidents of rows as they come, in lines for a person."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from models.parts.incident_rule import Rule
from service.cli.found import Row, changes, sentence
from service.domain.incident_fold import Fold


@dataclass(slots=True)
class Live:
    """The incidents of the rows as they come, by the rule given."""

    rule: Rule
    rows: int = 0
    alarms: int = 0
    _fold: Fold = field(default_factory=Fold)
    _row: Row | None = None

    def add(self, row: Row) -> Iterator[str]:
        """Take note of the next row; yield what there is to print."""
        if row.is_anomaly is None:
            return
        self._row = row
        self.rows += 1
        self.alarms += row.is_anomaly
        for change in changes(self._fold, self.rule, row):
            if change.told:
                yield f"{change.kind}: {sentence(change.incident, row)}"

    def end(self) -> Iterator[str]:
        """Yield what there is to print when nothing more comes."""
        if self._row is not None:
            for incident in self._fold.open():
                yield f"still open: {sentence(incident, self._row)}"
        yield f"{self.alarms} of {self.rows} rows were anomalies"
