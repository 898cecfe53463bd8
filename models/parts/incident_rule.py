"""The rule that opens and closes incidents. Pure functions.

Alarming rows of one source that lie near each other form one incident.
`models.parts.incident_calibration` chooses the rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DAY = 86_400.0
# An incident has a level after SETTLED alarming rows; the latest RECENT of them define it.
SETTLED, RECENT = 30, 64
RISE = 1.5  # a row this many times higher than the level opens another incident
LASTING = (60, 3600.0)  # an incident may become a lasting state after these alarming rows, seconds
STEADY = 1.1  # the later half of a lasting state is at most this many times as high as the earlier
AT_LEVEL = 32  # latest rows of a state, whose median is its level
LIFT = 1.23  # a row belongs to the state if it is at most this many times as high as the level
# A row also belongs to the state if it is at most as high as the USUAL quantile of the latest
# USUAL_ROWS alarming rows before it. The heights of some states differ by far more than LIFT.
USUAL, USUAL_ROWS = 0.98, 128
# An alarming row belongs to an open incident if the rows before it alarm at least half as densely
# as the rule asks to open one.
WIDER = 2
# Scores that are zero for the most normal rows, so that their ratios have a meaning.
FROM_ZERO = frozenset({"auto"})


class Rule(NamedTuple):
    """`k` alarming rows among the latest `m` of a source, or one severe row, open an incident.

    One row is severe enough if its severity is at least `alone`. The incident closes after
    `seconds`, and `m` rows, without a row that belongs to it (see `belongs`).
    """

    k: int
    m: int
    alone: float
    seconds: float


def opens(rule: Rule, alarms: Sequence[int], severity: float) -> bool:
    """Return whether the latest alarming row opens an incident.

    `alarms` are the ascending row numbers of the source's latest alarming rows. The last one is the
    row itself, which has this `severity`.

    >>> rule = Rule(k=2, m=5, alone=4.0, seconds=300.0)
    >>> opens(rule, [1, 5], 1.2), opens(rule, [0, 5], 1.2), opens(rule, [5], 4.0)
    (True, False, True)
    """
    if severity >= rule.alone:
        return True
    return len(alarms) >= rule.k and alarms[-1] - alarms[-rule.k] < rule.m


def belongs(rule: Rule, alarms: Sequence[int], severity: float) -> bool:
    """Return whether the latest alarming row belongs to the open incident.

    It does if `k` of the latest 2 `m` rows alarm, or if it is severe enough to open an incident.
    A single false alarm therefore does not keep an incident open: in a fast stream there is one
    every few seconds. The arguments are those of `opens`.

    >>> rule = Rule(k=2, m=5, alone=4.0, seconds=300.0)
    >>> belongs(rule, [1, 10], 1.2), belongs(rule, [0, 10], 1.2), belongs(rule, [10], 4.0)
    (True, False, True)
    """
    return opens(rule._replace(m=WIDER * rule.m), alarms, severity)


def heights(
    severities: NDArray[np.float64], scores: NDArray[np.float64], threshold: float, named: str
) -> NDArray[np.float64]:
    """Return how high alarming rows (n,) are above normal rows; 1 is the threshold.

    Few calibration rows alarm, so the p-values of alarming rows take few values. The severities of
    a new regime therefore hardly differ from those of a fault in it, but the scores do. `named` is
    the score's name. If the score has no natural zero, the height is the severity.

    >>> severities, scores = np.array([1.5, 1.6]), np.array([15.0, 30.0])
    >>> heights(severities, scores, 7.5, "auto").tolist()
    [2.0, 4.0]
    >>> heights(severities, scores, 7.5, "elbo").tolist()
    [1.5, 1.6]
    """
    if named not in FROM_ZERO or threshold <= 0.0:
        return severities
    return np.maximum(1.0, scores / threshold)


def opens_another(height: float, recent: Sequence[float]) -> bool:
    """Return whether a row of an open incident is so high that it opens another incident.

    `recent` are the heights of the incident's latest alarming rows before this one, at most RECENT.
    A lasting state, such as a new regime, is one incident; a fault on top of it is a second one. A
    growing fault stays one incident: it has no level, because its later half is higher.

    >>> [opens_another(height, [2.0] * n) for height, n in ((3.1, 30), (2.9, 30), (3.1, 29))]
    [True, False, False]
    >>> opens_another(9.0, [1.0 + row / 10 for row in range(60)])
    False
    """
    return keeps_level(recent, RISE) and height > RISE * max(recent)


def keeps_level(recent: Sequence[float], most: float) -> bool:
    """Return whether the latest heights of an incident, in order, keep a level.

    They do if the maximum of their later half is at most `most` times that of the earlier half.

    >>> growing = [1.0 + row / 60 for row in range(60)]
    >>> cases = [2.0] * 30, [2.0] * 29, growing
    >>> [keeps_level(heights, 1.3) for heights in cases], keeps_level(growing, 1.4)
    ([True, False, False], True)
    """
    half = len(recent) // 2
    return len(recent) >= SETTLED and max(recent) <= most * max(recent[:half])


def is_lasting(rows: int, seconds: float, recent: Sequence[float]) -> bool:
    """Return whether an open incident of `rows` alarming rows in `seconds` is a lasting state.

    `recent` are its latest heights, in order. People already know of such a state, but it would
    hide later faults. It therefore ends as an incident, and later rows are measured relative to its
    level. A growing fault is no such state.

    >>> [is_lasting(*case, [2.0] * 60) for case in ((60, 3600.0), (59, 3600.0), (60, 3599.0))]
    [True, False, False]
    """
    return rows >= LASTING[0] and seconds >= LASTING[1] and keeps_level(recent, STEADY)


def severity_above_level(height: float, level: float, usual: float = 0.0) -> float:
    """Return the severity of a row relative to a lasting state at `level`, as input for `opens`.

    From 1 on, the row alarms. `usual` is a height that the rows of the state seldom exceed.

    >>> severity_above_level(2.46, 2.0), severity_above_level(3.69, 2.0)
    (1.0, 1.5)
    >>> severity_above_level(3.69, 2.0, usual=3.69) < 1.0
    True
    """
    return round(height / max(LIFT * level, 1.01 * usual), 12)


def closes(rule: Rule, rows: float, seconds: float) -> bool:
    """Return whether an open incident is over, `rows` and `seconds` after the last row of it.

    Both bounds must be reached: a fast stream waits for the time, a slow one for the rows.

    >>> rule = Rule(k=2, m=5, alone=4.0, seconds=300.0)
    >>> closes(rule, 5, 300.0), closes(rule, 5, 299.0), closes(rule, 4, 86400.0)
    (True, False, False)
    """
    return rows >= rule.m and seconds >= rule.seconds


def ends_in_silence(rule: Rule, seconds: float, interval: float | None) -> bool:
    """Return whether an open incident is over because its source sent no row for `seconds`.

    `interval` is the usual time between two rows of the source in seconds. None means that it is
    unknown; then it counts as a day.

    >>> rule = Rule(k=2, m=5, alone=4.0, seconds=300.0)
    >>> pairs = (299.0, 1.0), (300.0, 1.0), (300.0, 3600.0)
    >>> [ends_in_silence(rule, seconds, interval) for seconds, interval in pairs]
    [False, True, False]
    """
    return seconds >= max(rule.seconds, DAY if interval is None else rule.m * interval)
