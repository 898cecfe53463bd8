"""Pauses between the rounds of a repeated task, so that the task takes a bounded share of time."""

LONGEST = 60.0  # seconds; no measured time makes a pause longer


def pause(took: float, share: float, least: float) -> float:
    """Return the seconds to wait after a round that took `took` seconds.

    The task then takes at most `share` of the time. The pause is at least `least` seconds. It is
    at most LONGEST: a process that was frozen in a round measures the whole freeze, and would
    otherwise rest for several times as long.

    >>> pause(2.0, 0.25, 1.0), pause(0.0, 0.25, 1.0), pause(3600.0, 0.25, 1.0)
    (6.0, 1.0, 60.0)
    """
    return max(least, min(took / share - took, LONGEST))
