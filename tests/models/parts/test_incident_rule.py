"""What opens and closes an incident."""

import pytest

from models.parts.incident_rule import Rule, belongs, closes, ends_in_silence, opens

RULE = Rule(k=3, m=10, alone=4.0, seconds=300.0)


@pytest.mark.parametrize(
    ("alarms", "severity", "opened"),
    [
        ([7], 1.0, False),
        ([7], 3.999, False),
        ([7], 4.0, True),  # one very severe row
        ([1, 7], 1.0, False),  # two of three
        ([1, 5, 10], 1.0, True),  # rows 1 to 10 are ten rows
        ([0, 5, 10], 1.0, False),  # rows 0 to 10 are eleven
        ([0, 8, 9, 10], 1.0, True),  # an older alarm does not matter
    ],
)
def test_enough_alarms_or_one_severe_row_open_an_incident(
    alarms: list[int], severity: float, opened: bool
) -> None:
    """Three alarming rows of ten open an incident, or one very severe row."""
    assert opens(RULE, alarms, severity) is opened


@pytest.mark.parametrize(
    ("alarms", "severity", "expected"),
    [
        ([7], 1.0, False),
        ([7], 4.0, True),  # one very severe row
        ([1, 7], 1.0, False),  # two of three
        ([1, 10, 20], 1.0, True),  # rows 1 to 20 are twenty rows: half as dense as at opening
        ([0, 10, 20], 1.0, False),  # rows 0 to 20 are twenty-one
    ],
)
def test_alarms_half_as_dense_belong_to_an_open_incident(
    alarms: list[int], severity: float, expected: bool
) -> None:
    """Three alarming rows of twenty continue an incident; a single false alarm does not."""
    assert belongs(RULE, alarms, severity) is expected


@pytest.mark.parametrize(
    ("rows", "seconds", "over"),
    [(10, 300.0, True), (9, 300.0, False), (10, 299.9, False), (9, 1e9, False), (1e9, 0.0, False)],
)
def test_an_incident_closes_after_enough_rows_and_time(
    rows: float, seconds: float, over: bool
) -> None:
    """An incident is over once enough rows and enough time passed without a row of it."""
    assert closes(RULE, rows, seconds) is over


@pytest.mark.parametrize(
    ("seconds", "interval", "over"),
    [
        (300.0, 1.0, True),  # a fast stream that ended
        (299.0, 1.0, False),
        (3600.0, 3600.0, False),  # one row an hour: only the number of rows counts
        (36_000.0, 3600.0, True),
        (86_399.0, None, False),
        (86_400.0, None, True),
    ],
)
def test_a_silent_source_ends_its_incident(
    seconds: float, interval: float | None, over: bool
) -> None:
    """A source that sends nothing ends its incident after the usual time of as many rows."""
    assert ends_in_silence(RULE, seconds, interval) is over
