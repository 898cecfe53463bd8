"""The times in the cells of text tables."""

from zoneinfo import ZoneInfo

import pytest

from service.domain.cells import BadCell, Clock

NEW_YEAR = 1_483_228_800.0  # 2017-01-01T00:00:00Z, after a leap second


@pytest.mark.parametrize(
    ("clock", "cell"),
    [
        (Clock(), "2016-12-31T23:59:60Z"),
        (Clock(), "2016-12-31 23:59:60 UTC"),
        (Clock(zone=ZoneInfo("Europe/Berlin")), "2017-01-01 00:59:60"),
        (Clock("%d.%m.%Y %H:%M:%S"), "31.12.2016 23:59:60"),
        (Clock("%d.%m.%Y %H:%M:%S", ZoneInfo("Europe/Berlin")), "01.01.2017 00:59:60"),
    ],
)
def test_a_leap_second_is_the_second_after_it(clock: Clock, cell: str) -> None:
    """A leap second, which ends a month in UTC, is read; the second 60 of other minutes is not."""
    assert clock.times([cell]).seconds.tolist() == [NEW_YEAR]
    with pytest.raises(BadCell, match="is not a time"):
        clock.times([cell.replace("59:60", "58:60")])
