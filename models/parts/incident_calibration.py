"""The calibration of the rule that opens incidents. Pure functions.

Rows in time are dependent, so false alarms come in runs, and the rate of runs does not follow from
the rate of rows. The rate is therefore counted on normals in order of arrival: `count_openings`
runs every rule of LADDER over them, and `choose` takes the first rule that opens no more often than
configured.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.parts.incident_rule import WIDER, Rule
from models.parts.lineage import FalseIncidents, Lineage

# (k alarming rows, m latest rows) of each rule, from the rule that opens soonest to the last.
LADDER = (
    (1, 1), (2, 5), (2, 2), (3, 10), (3, 5), (5, 20), (5, 10), (8, 20), (8, 10), (14, 20), (18, 20),
    (30, 40), (38, 40), (55, 60),
)  # fmt: skip

BUILT_IN = (3, 10)  # the rule without counts, and the first that is tried with too few rows
SHARE_ALONE = 0.25  # of the configured rate, for incidents that one very severe row opens
FEWEST = 3.0  # the calibration must be long enough to expect this many false incidents
CONFIDENCE = 0.95
LEAST_RATE = 1e-15  # false incidents a row: JSON holds the number of rows that this rate needs
PEAKS = 64  # the severest row of this many runs is kept


def incidents_opened(rows: Iterable[int], k: int, m: int) -> int:
    """Return how many incidents the rule `k` of `m` opens; the numbers of alarming rows ascend.

    An open incident lasts until none of `m` consecutive rows belongs to it, as
    `incident_rule.belongs` defines.

    >>> incidents_opened([0, 1, 2, 9, 30, 31], 2, 5)
    2
    """
    opened, last = 0, -math.inf  # the latest row that belongs to an incident
    recent: list[int] = []
    for row in rows:
        recent = [*recent[-(k - 1) :], row] if k > 1 else [row]
        is_open = row - last <= m
        if len(recent) >= k and row - recent[-k] < (WIDER * m if is_open else m):
            opened += not is_open
            last = row
    return opened


def false_incidents(lineage: Lineage | None) -> FalseIncidents | None:
    """Return the counts in a lineage; None if it has none, or has counts for other rules."""
    counts = lineage.incidents if lineage else None
    return counts if counts and len(counts.openings) == len(LADDER) else None


def joined(counts: FalseIncidents, earlier: FalseIncidents | None) -> FalseIncidents:
    """Return the sums of these counts and of earlier ones on normals judged in the same way."""
    if earlier is None or (earlier.alpha, earlier.format) != (counts.alpha, counts.format):
        return counts
    return msgspec.structs.replace(
        counts,
        rows=counts.rows + earlier.rows,
        openings=tuple(a + b for a, b in zip(counts.openings, earlier.openings, strict=True)),
        peaks=tuple(sorted((*counts.peaks, *earlier.peaks), reverse=True)[:PEAKS]),
    )


def severities_by_rank(scores: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return the severities (n,) of training rows from their ranks among themselves.

    A version's training rows score lower than new rows, so by score too few of them would alarm. By
    rank, the share `alpha` alarms, as with new rows.
    """
    n = len(scores)
    at_least = n - np.sort(scores).searchsorted(scores, side="left")
    return np.log(at_least / (n + 1.0)) / min(math.log(alpha), -1e-12)


def count_openings(
    severities: NDArray[np.float64], alpha: float, runs: NDArray[np.int64] | None = None
) -> FalseIncidents:
    """Count how often each rule opens on normals with these severities (n,), in order of arrival.

    `runs` (n,) are ascending numbers of unbroken runs of rows; no incident extends from one run
    into the next. Without `runs` all rows are one run.
    """
    alarming = np.flatnonzero(severities >= 1.0)
    # A gap in the row numbers keeps two runs out of one window.
    if runs is not None and len(alarming):
        alarming = alarming + 10 * max(m for _, m in LADDER) * (runs[alarming] - runs[0])
    rows = alarming.tolist()
    return FalseIncidents(
        rows=len(severities),
        openings=tuple(incidents_opened(rows, k, m) for k, m in LADDER),
        peaks=_peaks(rows, severities[severities >= 1.0].tolist()),
        alpha=alpha,
    )


def _peaks(rows: Sequence[int], severities: Sequence[float]) -> tuple[float, ...]:
    """Return the largest severity of each run of alarming rows: the PEAKS largest, descending."""
    peaks: list[float] = []
    last = -math.inf
    for row, severity in zip(rows, severities, strict=True):
        if row - last > BUILT_IN[1]:
            peaks.append(severity)
        else:
            peaks[-1] = max(peaks[-1], severity)
        last = row
    return tuple(sorted(peaks, reverse=True)[:PEAKS])


class ChosenRule(NamedTuple):
    """The chosen rule, and the rates of false incidents a day.

    `asked` is the configured rate. `per_day` is the rule's rate on the calibration normals, with a
    Poisson interval from `low` to `high`. These three are None if `calibration` is `insufficient`.
    `counted_rows` is the number of calibration normals for this alpha, and `needed_rows` is how
    many the rate needs at the present traffic, None while that is unknown.
    """

    rule: Rule
    calibration: Literal["exact", "insufficient"]
    asked: float
    per_day: float | None
    low: float | None
    high: float | None
    counted_rows: int
    needed_rows: int | None


def choose(
    counts: FalseIncidents | None,
    asked: float,
    rows_per_day: float | None,
    alpha: float,
    seconds: float,
) -> ChosenRule:
    """Return the first rule of LADDER that opens at most `asked` false incidents a day.

    `rows_per_day` is the detector's traffic; None while it is unknown. `alpha` is the p-value at
    the threshold. The rule is BUILT_IN and the calibration `insufficient` if the traffic is unknown
    or `alpha` differs from the calibration's. The calibration is `insufficient` too if it is too
    short to expect FEWEST false incidents at the rate `asked`. Then BUILT_IN is the first rule that
    is tried. It may open too often even on these few normals, because on some data false alarms
    come in longer runs.
    """
    daily = rows_per_day or 1440.0
    rate = max(asked / daily, LEAST_RATE)
    alone = max(1.0, math.log(min(rate * SHARE_ALONE, 0.5)) / min(math.log(alpha), -1e-12))
    needed = None if rows_per_day is None else math.ceil(FEWEST / rate)
    if counts is not None and not math.isclose(counts.alpha, alpha, rel_tol=0.01):
        counts = None
    if counts is None or rows_per_day is None:
        rule, rows = Rule(*BUILT_IN, alone, seconds), counts.rows if counts else 0
        return ChosenRule(rule, "insufficient", asked, None, None, None, rows, needed)
    most = rate * counts.rows
    allowed = int(most * SHARE_ALONE)
    # At most `allowed` of the calibration's runs may reach the severity that opens alone.
    if allowed < len(counts.peaks):
        alone = max(alone, math.nextafter(counts.peaks[allowed], math.inf))
    by_one_row = sum(peak >= alone for peak in counts.peaks)
    first = LADDER.index(BUILT_IN) if most < FEWEST else 0
    steps = range(first, len(LADDER))
    fits = (i for i in steps if counts.openings[i] + by_one_row <= most)
    step = next(fits, len(LADDER) - 1)
    k, m = LADDER[step]
    rule = Rule(k, m, alone, seconds)
    if most < FEWEST:
        return ChosenRule(rule, "insufficient", asked, None, None, None, counts.rows, needed)
    count = counts.openings[step] + by_one_row
    low, high = poisson_interval(count)
    daily /= counts.rows
    held = count * daily, low * daily, high * daily
    return ChosenRule(rule, "exact", asked, *held, counts.rows, needed)


def poisson_interval(count: int) -> tuple[float, float]:
    """Return the exact interval (Garwood, 1936) of the mean behind a Poisson count.

    >>> low, high = poisson_interval(0)
    >>> low, round(high, 2)
    (0.0, 3.69)
    """
    # imported here: an API process never calls this and must not load scipy
    from scipy.stats import chi2

    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(chi2.ppf(tail, 2 * count)) / 2.0 if count else 0.0
    return low, float(chi2.ppf(1.0 - tail, 2 * count + 2)) / 2.0
