"""Drift pages on normals in time order, for each machine of SMD and the pump of SKAB.

    OMP_NUM_THREADS=1 python -m benchmarks.drift_pages --over 0 10 --learn 0 1000

The first half of a machine's normals is learned, and the second half follows row by row, as the
worker gets it. No row is a fault, so every page is a false one. A page follows the alert rules: a
test must alarm for an hour, and an alert that fires again within five minutes is the same page.
With `--learn n` the rows that followed are learned n at a time, as the loop of the README does; 0
learns none of them. The numbers of the rules were chosen on machine 1-6 alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.incidents import Stream, streams
from benchmarks.report import parser_of
from models import Config, Version, train
from models.context import Context
from models.drift.finding import Verdict
from models.drift.state import DriftTests, Sample
from models.parts.incident_calibration import poisson_interval
from models.parts.incident_rule import DAY
from service.worker.drift_monitor import baseline_of

WAITS, HOLDS = 3600.0, 300.0  # seconds: `for` and `keep_firing_for` of the alert rules
LOOK = 30.0  # seconds between two looks, or the time of a row
MONTH = 30 * DAY
ALERTS = {"ScoreDrift": "scores", "FeatureDrift": "inputs"}


class Page(NamedTuple):
    """When an alert on a statistic (`scores`, `inputs`) began to fire and stopped, seconds."""

    statistic: str
    start: float
    end: float


def alarming(verdict: Verdict) -> set[str]:
    """Return the names of the statistics on which an alert rule pages."""
    statistics = verdict.statistics
    tests = (("scores", statistics.martingale), ("inputs", statistics.inputs))
    return {name for name, test in tests if test and test.alarm}


def pages(looks: Iterable[tuple[float, set[str]]]) -> list[Page]:
    """Return the pages of successive looks: the time of each, and what alarms then.

    >>> pages([(0.0, {"a"}), (3600.0, {"a"}), (3660.0, set()), (3780.0, {"a"}), (4500.0, set())])
    [Page(statistic='a', start=3600.0, end=4500.0)]
    """
    pending: dict[str, float] = {}
    firing: dict[str, tuple[float, float]] = {}  # since when, and when it alarmed last
    done, at = [], 0.0
    for at, alarms in looks:
        for name in list(firing):
            if name in alarms:
                firing[name] = (firing[name][0], at)
            elif at - firing[name][1] > HOLDS:
                done.append(Page(name, firing.pop(name)[0], at))
        pending = {name: pending.get(name, at) for name in alarms}
        for name, since in pending.items():
            if name not in firing and at - since >= WAITS:
                firing[name] = (at, at)
    return done + [Page(name, since, at) for name, (since, _) in firing.items()]


def live_tests(version: Version, uid: str, number: int = 1) -> DriftTests:
    """Return the worker's tests of the version's live rows, before the first row."""
    threshold = version.threshold_for(version.config.threshold)
    return DriftTests(baseline_of(version, threshold, uid, number))


def looks(
    drift: DriftTests, version: Version, X: NDArray[np.float32], each: int
) -> Iterator[tuple[int, Verdict]]:
    """Yield the verdict after every `each` rows of X (n, d), and how many rows had come."""
    judged = version.judge(X)
    for start in range(0, len(X), each):
        rows = slice(start, start + each)
        drift.update(
            Sample(
                judged.scores[rows],
                judged.p_values[rows],
                int(np.count_nonzero(judged.is_anomaly[rows])),
                len(X[rows]),
                version.reference.bin_counts(X[rows]),
            )
        )
        yield start + len(X[rows]), drift.verdict()


def looks_after_half(
    version: Version, stream: Stream, half: int, learn: int
) -> Iterator[tuple[float, set[str]]]:
    """Yield the time of each look at the rows after `half`, in seconds, and what alarms then."""
    each = max(1, round(LOOK / stream.every))
    rest = stream.normals[half:]
    for number, start in enumerate(range(0, len(rest), learn or len(rest)), 1):
        X = rest[start : start + learn] if learn else rest
        for rows, verdict in looks(live_tests(version, stream.name, number), version, X, each):
            yield (start + rows) * stream.every, alarming(verdict)
        if learn:
            version = train(version, X, version.config)


def report(stream: Stream, config: Config, learns: Sequence[int]) -> None:
    """Print how many pages came, and what that is in 30 days."""
    half = len(stream.normals) // 2
    version = train(None, stream.normals[:half], config)
    seconds = (len(stream.normals) - half) * stream.every
    for learn in learns:
        fired = pages(looks_after_half(version, stream, half, learn))
        how = f"learned {learn} rows at a time" if learn else "not learned"
        parts = [f"{stream.name}: {seconds / DAY:.2f} days of normals, {how}"]
        for alert, statistic in ALERTS.items():
            count = sum(page.statistic == statistic for page in fired)
            low, high = (bound * MONTH / seconds for bound in poisson_interval(count))
            parts.append(
                f"{alert} {count} pages, {count * MONTH / seconds:.1f} in 30 days "
                f"[{low:.1f}, {high:.1f}]"
            )
        print("; ".join(parts), flush=True)
        print_pages(fired)


def print_pages(fired: Sequence[Page]) -> None:
    """Print when each page began and ended."""
    for page in fired:
        print(f"  {page.statistic}: day {page.start / DAY:.2f} to {page.end / DAY:.2f}")


def main() -> None:
    """Print a line for each stream."""
    parser = parser_of(__doc__)
    parser.add_argument("--over", type=int, nargs="+", default=[0], help="rows of context")
    parser.add_argument("--learn", type=int, nargs="+", default=[0], help="rows of a retraining")
    args = parser.parse_args()
    for over in args.over:
        context = Context(over=over) if over else None
        for stream in streams():
            report(stream.derived(context), Config(context=context), args.learn)


if __name__ == "__main__":
    main()
