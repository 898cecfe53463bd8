"""The pace at which a file is recorded."""

from types import SimpleNamespace
from typing import Any

from service.cli.recording import Pace, where_recorded
from service.timestamps import EARLIEST, LATEST


def test_a_burst_of_alarms_waits_for_the_service() -> None:
    """After 25 runs of alarming rows in a second the next second is awaited; long runs count once.

    Verdicts of rows that were not judged are None.
    """
    now, waits = [100.0], []

    def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))
        now[0] += seconds

    pace = Pace(lambda: now[0], sleep)
    pace.wait([True] * 1000)
    pace.wait([True, None, False] * 10)
    assert waits == []  # 11 runs
    now[0] += 0.4
    pace.wait([False, True] * 14)
    assert waits == [0.7]
    for _ in range(5):  # 24 runs in each second
        pace.wait([True, False] * 24)
        now[0] += 1.2
    assert waits == [0.7]


def test_the_last_line_leads_to_the_page() -> None:
    """The address of the page has the name and the time of the rows."""
    targets: Any = SimpleNamespace(all=["pump:a"], first=SimpleNamespace(name="pump:a"))
    said = where_recorded(targets, "http://host:8000", (0.0, 60.0))
    assert said == (
        "recorded: a few seconds from now, http://host:8000/detectors/pump%3Aa?"
        "from=1969-12-31T23:00:00.000Z&to=1970-01-01T00:11:00.000Z shows the incidents"
    )
    assert "host:8000/detectors/pump%3Aa shows" in where_recorded(targets, "http://host:8000", None)
    ages = where_recorded(targets, "http://host:8000", (EARLIEST, LATEST))
    assert "from=0001-01-02T00:00:00.000Z&to=9999-12-31T00:00:00.000Z" in ages
    targets.all.append("pump:b")
    assert "//host:8000 shows" in where_recorded(targets, "http://host:8000", (0.0, 60.0))
