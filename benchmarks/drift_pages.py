"""Drift pages on normals in time order, for each machine of SMD and the pump of SKAB.

    OMP_NUM_THREADS=1 python -m benchmarks.drift_pages --over 0 10

The first half of a machine's normals is learned, and the second half follows row by row, as the
worker gets it. Nothing in it is a fault, so every page is a false one. A page follows the alert
rules: a test must alarm for a minute, and what fires again within five minutes is the same page.
FeatureDrift pages once for each feature; a notifier that groups by detector sends fewer.
"""

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from benchmarks.incidents import Stream, streams
from models import Config, Version, train
from models.context import Context
from models.drift.finding import Verdict
from models.drift.state import DriftTests, Sample
from models.parts.incident_rule import DAY, poisson_interval
from service.worker.drift_monitor import baseline_of

WAITS, HOLDS = 60.0, 300.0  # seconds: `for` and `keep_firing_for` of the alert rules
MONTH = 30 * DAY


class Page(NamedTuple):
    """When an alert on a statistic (`scores`, or a feature) began to fire and stopped, seconds."""

    of: str
    start: float
    end: float


def alarming(verdict: Verdict) -> set[str]:
    """Return the names of the statistics on which an alert rule pages."""
    found = {one.feature for one in verdict.statistics.features if one.alarm}
    return found | ({"scores"} if verdict.statistics.martingale.alarm else set())


def pages(looks: Iterable[tuple[float, set[str]]]) -> list[Page]:
    """Return the pages of successive looks: the time of each, and what alarms then.

    >>> pages([(0.0, {"a"}), (60.0, {"a"}), (120.0, set()), (240.0, {"a"}), (900.0, set())])
    [Page(of='a', start=60.0, end=900.0)]
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


def followed(version: Version, stream: Stream, learned: int) -> list[Page]:
    """Return the pages while the normals after the `learned` ones come, a row at a time."""
    X = stream.normals[learned:]
    judged = version.judge(X)
    threshold = version.threshold_for(version.config.threshold)
    drift = DriftTests(baseline_of(version, threshold, stream.name, 1))

    def looks() -> Iterable[tuple[float, set[str]]]:
        each = max(1, round(WAITS / 2 / stream.every))  # two looks a minute, or one a row
        for start in range(0, len(X), each):
            rows = slice(start, start + each)
            drift.update(
                Sample(
                    judged.scores[rows],
                    judged.p_values[rows],
                    int(np.count_nonzero(judged.is_anomaly[rows])),
                    len(X[rows]),
                    version.reference.count(X[rows]),
                )
            )
            yield (start + len(X[rows])) * stream.every, alarming(drift.verdict())

    return pages(looks())


def report(stream: Stream, config: Config) -> None:
    """Print how many pages came, and what that is in 30 days."""
    half = len(stream.normals) // 2
    version = train(None, stream.normals[:half], config)
    found = followed(version, stream, half)
    seconds = (len(stream.normals) - half) * stream.every
    scores = [one for one in found if one.of == "scores"]
    parts = [f"{stream.name}: {seconds / DAY:.2f} days of normals not used"]
    for alert, count in (("ScoreDrift", len(scores)), ("FeatureDrift", len(found) - len(scores))):
        low, high = (bound * MONTH / seconds for bound in poisson_interval(count))
        parts.append(
            f"{alert} {count} pages, {count * MONTH / seconds:.1f} in 30 days "
            f"[{low:.1f}, {high:.1f}]"
        )
    features = sorted({one.of for one in found} - {"scores"})
    parts.append(f"features {', '.join(features) or 'none'}")
    print("; ".join(parts), flush=True)
    for one in found:
        print(f"  {one.of}: day {one.start / DAY:.2f} to {one.end / DAY:.2f}")


def main() -> None:
    """Print a line for each stream."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--over", type=int, nargs="+", default=[0], help="rows of context")
    args = parser.parse_args()
    for over in args.over:
        context = Context(over=over) if over else None
        for stream in streams():
            report(stream.derived(context), Config(context=context))


if __name__ == "__main__":
    main()
