"""Formats numbers and times for people, in the templates."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from service.domain import incident
from service.timestamps import day_and_time

_SPARK = 120, 24  # width and height of the template's picture
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: Any, digits: int = 4, beside: Any = None) -> str:
    """Return a number with `digits` significant digits, a text unchanged, `–` for None.

    It has more digits if it would look the same as another number `beside` it.

    >>> number(2827.2391), number(0.00123456), number("idle"), number(None)
    ('2,827', '0.001235', 'idle', '–')
    """
    return incident.number(value, digits, beside=beside, blank="–", comma=",")


def vector(row: Sequence[Any]) -> str:
    """Return a row as a person types it. Commas separate the values, so numbers have no commas.

    >>> vector([2843.2, 58.65, "idle"])
    '2843, 58.65, idle'
    """
    return ", ".join(
        value if isinstance(value, str) else number(value).replace(",", "") for value in row
    )


def percent(share: Any) -> str:
    """Return a share in per cent.

    >>> percent(0.0123), percent(None)
    ('1.2 %', '–')
    """
    return "–" if share is None else f"{number(100 * share, 2)} %"


def duration(seconds: Any) -> str:
    """Return a length of time in its one or two largest units.

    >>> duration(5400), duration(172800), duration(None)
    ('1 h 30 min', '2 d', '–')
    """
    if seconds is None:
        return "–"
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, name in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {name}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def moment(text: Any, clock: str = "%H:%M") -> str:
    """Return an RFC 3339 time as a day and a time of day in the format `clock`, UTC.

    The year is named unless it is the present one.

    >>> moment("2012-11-28T10:19:33.000Z")
    '28 Nov 2012 10:19'
    """
    return day_and_time(datetime.fromisoformat(str(text)).timestamp(), clock) if text else "–"


def seconds_since(text: Any, now: float) -> float | None:
    """Return the seconds from an RFC 3339 time to `now`, None if there is no time."""
    return None if not text else now - datetime.fromisoformat(str(text)).timestamp()


def sparkline(places: Sequence[float], values: Sequence[float], wide: float) -> list[str]:
    """Return the points of SVG polylines, one for each run of buckets without a gap.

    `places` are where the buckets begin, from 0 to 1, and `wide` is the width of a bucket. Values
    are shown from 0 to 2; larger ones count as 2.

    >>> sparkline([0.0, 0.25, 0.75], [0.0, 1.0, 4.0], 0.25)
    ['0.0,24.0 30.0,24.0 30.0,12.0 60.0,12.0', '90.0,0.0 120.0,0.0']
    """
    width, height = _SPARK
    runs: list[str] = []
    end = -math.inf
    for place, value in zip(places, values, strict=True):
        y = height - height * min(max(value, 0.0), 2.0) / 2
        step = f"{width * place:.1f},{y:.1f} {width * (place + wide):.1f},{y:.1f}"
        if runs and place - end < wide / 2:
            runs[-1] += f" {step}"
        else:
            runs.append(step)
        end = place + wide
    return runs
