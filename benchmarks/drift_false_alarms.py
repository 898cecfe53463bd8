"""Measure how often drift detection alarms without drift, and how soon it finds a drift.

It uses streams of normal scores without a service, and so tests the statistical claim alone. By the
martingale's bound, at most 1 % of streams without drift ever cross 100. "Fixed calibration" is the
same martingale on smoothed p-values that are ranked among the calibration scores only.
It is wrong and shown for comparison. The delay is the number of scores from the shift to the alarm.

    python -m benchmarks.drift_false_alarms --output benchmarks/results/drift.json
"""

import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks.report import arguments, report
from models.drift.martingale import Martingale, bets
from models.drift.scores import CROSSING, HOLD, ChangeTest

LIMIT = math.log(CROSSING)
SHIFTS = (0.5, 1.0, 2.0)  # standard deviations of the scores
WAIT = 1000  # scores after the shift


class FixedMartingale(Martingale):
    """The same bets on smoothed p-values against the calibration alone."""

    def __init__(self, calibration, generator):
        super().__init__(calibration, generator)
        self._sorted = np.sort(calibration)

    def update(self, scores):
        """Bet on (n,) scores without adding them to the ranked scores."""
        above = len(self._sorted) - np.searchsorted(self._sorted, scores, "right")
        p = (above + 1.0 - self.generator.random(len(scores))) / (len(self._sorted) + 1)
        return np.array([self._step(stakes) for stakes in bets(p)])


def p_values(calibration, scores):
    """Return the p-values that answers carry."""
    at_least = len(calibration) - np.searchsorted(np.sort(calibration), scores, "left")
    return (1.0 + at_least) / (len(calibration) + 1.0)


def stream(n, length, seed):
    """Return, for one stream, which tests alarmed without drift, and the delays after shifts."""
    rng = np.random.default_rng([seed, n])
    calibration, quiet = rng.normal(size=n), rng.normal(size=length)
    martingale = Martingale(calibration, np.random.default_rng([seed, n, 1]))
    crossed = bool(martingale.update(quiet).max() >= LIMIT)
    fixed = FixedMartingale(calibration, np.random.default_rng([seed, n, 1]))
    fixed_crossed = bool(fixed.update(quiet).max() >= LIMIT)
    change, adwin = ChangeTest(), False
    p = p_values(calibration, quiet)
    for start in range(0, length, HOLD):
        change.update(p[start : start + HOLD])
        adwin |= change.finding().alarm
    delays, adwin_delays = [], []
    for shift in SHIFTS:
        moved = rng.normal(shift, 1.0, size=WAIT)
        path = Martingale.from_dict(martingale.to_dict()).update(moved)
        delays.append(None if crossed else first_true(path >= LIMIT))
        test = ChangeTest()
        test.restore(change.to_dict())
        delay = first_alarm(test, p_values(calibration, moved))
        adwin_delays.append(None if adwin else delay)
    return crossed, fixed_crossed, adwin, delays, adwin_delays


def first_true(alarms):
    """Return how many scores it took until `alarms` (n,) was true, or None."""
    places = np.flatnonzero(alarms)
    return int(places[0]) + 1 if len(places) else None


def first_alarm(change, p):
    """Return after how many p-values ADWIN alarms, in steps of 16, or None."""
    for start in range(0, len(p), 16):
        change.update(p[start : start + 16])
        if change.finding().alarm:
            return start + 16
    return None


def measure(pool, n, args):
    """Return one row for each shift."""
    work = partial(stream, n, args.length)
    crossed, fixed, adwin, delays, adwin_delays = zip(
        *pool.map(work, range(args.streams), chunksize=8), strict=True
    )
    return [
        {
            "calibration": n,
            "streams": args.streams,
            "crossed %": 100 * float(np.mean(crossed)),
            "fixed calibration %": 100 * float(np.mean(fixed)),
            "adwin alarms %": 100 * float(np.mean(adwin)),
            "shift (sd)": shift,
            **delay("martingale", [row[i] for row in delays], args.streams - sum(crossed)),
            **delay("adwin", [row[i] for row in adwin_delays], args.streams - sum(adwin)),
        }
        for i, shift in enumerate(SHIFTS)
    ]


def delay(name, delays, streams):
    """Return the share of streams in which the shift was found, and how soon."""
    known = [delay for delay in delays if delay is not None]
    return {
        f"{name} found %": 100 * len(known) / max(1, streams),
        f"{name} median delay": float(np.median(known)) if known else None,
        f"{name} p90 delay": float(np.quantile(known, 0.9)) if known else None,
    }


def main():
    parser = arguments(__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--length", type=int, default=5000, help="scores before the shift")
    args = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        rows = [row for n in (200, 1000) for row in measure(pool, n, args)]
    report("drift_false_alarms", rows, args.output, length=args.length, bound=1 / CROSSING)


if __name__ == "__main__":
    main()
