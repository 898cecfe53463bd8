"""To which incident alarming rows are attributed."""

from collections.abc import Mapping

from service.domain.incident_fold import Block, Fold
from service.worker.incident_rows import gained, rows_so_far
from tests.service.domain.test_incident_fold import block, run


def rows_of(fold: Fold, reported: Block) -> Mapping[str, int]:
    """Fold the block; return the rows that each incident gained by it."""
    before = rows_so_far(fold, [])
    return gained(before, rows_so_far(fold, run(fold, reported)))


def test_rows_of_a_lasting_state_are_rows_of_its_incident() -> None:
    """After an incident became a lasting state, rows at its level still belong to it."""
    fold = Fold()
    first = rows_of(fold, block(0.0, 60.0, "x" * 62, severity=2.0))
    (incident,) = first
    assert (first, fold.open()) == ({incident: 62}, [])
    level = block(3720.0, 60.0, "x" * 100, severity=2.0)
    assert rows_of(fold, level) == {incident: 100}
    assert rows_of(fold, block(9720.0, 60.0, "." * 200)) == {}  # the state is over
