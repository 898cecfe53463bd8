"""How often does drift detection alarm without drift, and how soon with it?

Streams of normal scores, no service: the statistical claim alone. The martingale's bound says
that at most 1 % of streams without drift ever cross 100. "Fixed calibration" is the same
martingale on the p-values of the answers, ranked among the calibration scores only: what not to
do, shown for comparison. The delay is counted in scores from the shift to the alarm.

    python benchmarks/drift_false_alarms.py --output benchmarks/results/drift.json
"""

import math
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import arguments, report
from models.martingale import Martingale
from service.score_drift import CROSSING, HOLD, ChangeTest

LIMIT = math.log(CROSSING)
WAIT = 2000  # scores after the shift


class FixedMartingale(Martingale):
    """The same bets on smoothed p-values against the calibration alone."""

    def update(self, scores):
        """Bet on (n,) scores without putting them in the bag."""
        low = np.searchsorted(self._sorted, scores, "left")
        u = 1.0 - self.generator.random(len(scores))
        p = (len(self._sorted) - low + u) / (len(self._sorted) + 1)
        return np.array([self._step(stakes) for stakes in self._stakes(p)])

    def __init__(self, calibration, generator):
        super().__init__(calibration, generator)
        from models.martingale import bets

        self._sorted, self._stakes = np.sort(calibration), bets


def p_values(calibration, scores):
    """Return the p-values that answers carry."""
    at_least = len(calibration) - np.searchsorted(np.sort(calibration), scores, "left")
    return (1.0 + at_least) / (len(calibration) + 1.0)


def stream(n, length, shift, seed):
    """Return, for one stream: crossings without drift, ADWIN's alarm, delays after a shift."""
    rng = np.random.default_rng([seed, n])
    calibration, quiet = rng.normal(size=n), rng.normal(size=length)
    martingale = Martingale(calibration, np.random.default_rng([seed, n, 1]))
    crossed = bool(martingale.update(quiet).max() >= LIMIT)
    fixed = FixedMartingale(calibration, np.random.default_rng([seed, n, 1]))
    fixed_crossed = bool(fixed.update(quiet).max() >= LIMIT)
    change = ChangeTest()
    adwin = False
    p = p_values(calibration, quiet)
    for start in range(0, length, HOLD):
        change.update(p[start : start + HOLD])
        adwin |= change.verdict()["alarm"]
    moved = rng.normal(shift, 1.0, size=WAIT)
    late = np.flatnonzero(martingale.update(moved) >= LIMIT)
    moved_p = p_values(calibration, moved)
    adwin_delay = None
    for start in range(0, WAIT, 16):
        change.update(moved_p[start : start + 16])
        if change.verdict()["alarm"] and not adwin:
            adwin_delay = start + 16
            break
    return crossed, fixed_crossed, adwin, None if crossed or not len(late) else int(late[0]) + 1, adwin_delay


def measure(pool, n, args, shift):
    """Return one row of the table."""
    work = partial(stream, n, args.length, shift)
    crossed, fixed, adwin, delays, adwin_delays = zip(
        *pool.map(work, range(args.streams), chunksize=8), strict=True
    )
    share = float(np.mean(crossed))
    found = [delay for delay in delays if delay is not None]
    adwin_found = [delay for delay in adwin_delays if delay is not None]
    return {
        "calibration": n,
        "shift (sd)": shift,
        "streams": args.streams,
        "crossed 100 %": 100 * share,
        "standard error": 100 * math.sqrt(max(share, 1 / args.streams) * (1 - share) / args.streams),
        "fixed calibration %": 100 * float(np.mean(fixed)),
        "adwin alarms %": 100 * float(np.mean(adwin)),
        "found %": 100 * len(found) / max(1, args.streams - sum(crossed)),
        "median delay": float(np.median(found)) if found else math.nan,
        "p90 delay": float(np.quantile(found, 0.9)) if found else math.nan,
        "adwin delay": float(np.median(adwin_found)) if adwin_found else math.nan,
    }


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--length", type=int, default=5000, help="scores before the shift")
    args = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        rows = [
            measure(pool, n, args, shift) for n in (200, 1000) for shift in (0.5, 1.0, 2.0)
        ]
    report("drift_false_alarms", rows, args.output, length=args.length, bound=1 / CROSSING)


if __name__ == "__main__":
    main()
