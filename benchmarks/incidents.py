"""False incidents a day and fault windows found, on server and pump telemetry.

    OMP_NUM_THREADS=1 python -m benchmarks.incidents --over 0 10

Each machine of SMD is first learned from the first half of its normals, which also calibrates the
rule. The unused second half gives the measured rate of false incidents. Then the machine is learned
from all normals and judged on its test rows. A fault is found if an incident opens in its window,
or in the 10 rows before the window. An incident that touches no window is false. SKAB is learned
from the anomaly-free run, and each other run is judged separately; its rows come once a second.
`--over 10` adds each value's deviation from its mean over the previous 10 rows; 0 takes the row
alone.

`--dismiss` adds the live loop. If at least nine tenths of the rows alarm in the day after an
incident opened, a person dismisses the incident as a new regime. The rows of this day are then
learned, with the faults among them, and the new version judges the rows that follow. The dismissed
incident counts as false.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import load
from benchmarks.report import parser_of
from models import Config, Version, train
from models.context import Context, derive
from models.parts.incident_calibration import choose, false_incidents, poisson_interval
from models.parts.incident_rule import DAY, Rule, heights
from service.domain import incident_fold
from service.domain.incident_fold import Block, Fold

EARLY = 10  # rows before a window in which an incident still counts for it
SECONDS = 300.0
MINUTE = 60.0
REGIME = 0.9  # share of a day's rows that alarm
ALPHA = 0.01  # of the default threshold


class RowIncident(NamedTuple):
    """An incident in rows: its first and last alarming row, and the row that opened it."""

    start: int
    end: int
    opened: int


class Score(NamedTuple):
    """The result of a rule on labelled rows."""

    windows: int
    found: int
    false: int
    days: float
    inside: float
    delays: tuple[int, ...]


class Judged(NamedTuple):
    """The severities and heights of rows, (n,) each."""

    severities: NDArray[np.float64]
    heights: NDArray[np.float64]


def judge(version: Version, X: NDArray[np.float32]) -> Judged:
    """Judge rows X (n, d) by the version's own threshold."""
    judged = version.judge(X)
    threshold = version.threshold_for(version.config.threshold).value
    high = heights(judged.severities, judged.scores, threshold, version.config.score)
    return Judged(judged.severities, high)


def incidents(rows: Judged, rule: Rule, every: float) -> list[RowIncident]:
    """Return the incidents of rows `every` seconds apart, by the service's own fold."""
    severities, high = rows
    fold, incidents, before = Fold(), dict[str, RowIncident](), -1
    for row in np.flatnonzero(severities >= 1.0).tolist():
        at = row * every
        block = Block(
            "", row - before, at, (row - before - 1,), (at,), (float(severities[row]),),
            heights=(float(high[row]),),
        )  # fmt: skip
        conditions = incident_fold.Conditions(rule, at, ALPHA, version=1, generation=1)
        for change in fold.take(block, conditions):
            incident = change.incident
            opened = incidents[incident.id].opened if incident.id in incidents else row
            incidents[incident.id] = RowIncident(
                round(incident.start / every), round(incident.end / every), opened
            )
        before = row
    return list(incidents.values())


def windows(y: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return first row and row after the last of each fault."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], y, [0]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def score_against_labels(
    incidents: Sequence[RowIncident], y: NDArray[np.uint8], every: float
) -> Score:
    """Return the score of the incidents against the labels y (n,)."""
    faults = windows(y)
    delays = []
    for start, stop in faults:
        first = next(
            (incident.opened for incident in incidents if start - EARLY <= incident.opened < stop),
            None,
        )
        if first is not None:
            delays.append(max(0, first - start))
    false = [
        incident
        for incident in incidents
        if not any(
            incident.end >= start - EARLY and incident.start < stop for start, stop in faults
        )
    ]
    inside = np.zeros(len(y), bool)
    for incident in incidents:
        inside[incident.start : incident.end + 1] = True
    normal = y == 0
    days = normal.sum() * every / DAY
    share = float(inside[normal].mean()) if normal.any() else 0.0
    return Score(len(faults), len(delays), len(false), float(days), share, tuple(delays))


class Stream(NamedTuple):
    """Normals to learn (n, d), and runs of labelled rows to judge, `every` seconds apart."""

    name: str
    normals: NDArray[np.float32]
    runs: list[tuple[NDArray[np.float32], NDArray[np.uint8]]]
    every: float

    def derived(self, context: Context | None) -> "Stream":
        """Return the same rows as features of `context`, without rows that lack a full context."""
        if context is None:
            return self
        runs = [(derive(context, X).features[context.over :], y[context.over :])
                for X, y in self.runs]  # fmt: skip
        normals = derive(context, self.normals).features[context.over :]
        name = f"{self.name}, deviation from {context.over} rows"
        return self._replace(name=name, normals=normals, runs=runs)


def streams() -> Iterator[Stream]:
    """Yield two servers of SMD, a row a minute, and the pump of SKAB, a row a second."""
    smd, skab = load("smd_a.npz"), load("skab.npz")
    for i, name in enumerate(smd["names"]):
        learned = slice(*smd["train_offsets"][i : i + 2])
        tested = slice(*smd["test_offsets"][i : i + 2])
        run = (smd["X_test"][tested], smd["y_test"][tested])
        yield Stream(f"SMD {name}", smd["X_train"][learned], [run], 60.0)
    ends = skab["offsets"]
    runs = [(skab["X"][a:b], skab["y"][a:b]) for a, b in pairwise(ends)]
    yield Stream("SKAB pump", skab["X_normal"], runs, 1.0)


def incidents_of_rows(
    version: Version, X: NDArray[np.float32], rate: float, every: float
) -> tuple[list[RowIncident], int]:
    """Return the incidents of rows X (n, d), and the number dismissed as new regimes."""
    opened: list[RowIncident] = []
    start, dismissed, day = 0, 0, round(DAY / every)
    while True:
        rule = choose(false_incidents(version.lineage), rate, DAY / every, ALPHA, SECONDS).rule
        rows = judge(version, X[start:])
        severities = rows.severities
        for incident in incidents(rows, rule, every):
            first, stop = start + incident.opened, incident.opened + day
            if stop < len(severities) and np.mean(severities[incident.opened : stop] >= 1) > REGIME:
                opened.append(RowIncident(start + incident.start, start + stop - 1, first))
                version = train(version, X[first : start + stop], version.config)
                start, dismissed = start + stop, dismissed + 1
                break
            opened.append(RowIncident(start + incident.start, start + incident.end, first))
        else:
            return opened, dismissed


def description(scores: Sequence[Score]) -> str:
    """Return a description of a rule's result on several runs of rows."""
    total = sum(score.days for score in scores)
    inside = sum(score.inside * score.days for score in scores) / total
    delays = [delay for score in scores for delay in score.delays]
    delay = f"{np.median(delays):.0f} rows" if delays else "-"
    return (
        f"{sum(score.false for score in scores) / total:.2f} false a day, {100 * inside:.1f} % of "
        f"normal time inside, {len(delays)} of {sum(score.windows for score in scores)} windows "
        f"found, median delay {delay}"
    )


def report(stream: Stream, config: Config, asked: Sequence[float], dismiss: bool) -> None:
    """Print a line for each asked rate."""
    normals, every = stream.normals, stream.every
    half = len(normals) // 2
    early, version = train(None, normals[:half], config), train(None, normals, config)
    judged = judge(early, normals[half:])
    tests = [(judge(version, X), y) for X, y in stream.runs]
    quiet = np.concatenate([rows.severities[y == 0] >= 1 for rows, y in tests])
    print(f"{stream.name}: alarms on {100 * np.mean(judged.severities >= 1):.2f} % of normals not "
          f"used, on {100 * quiet.mean():.2f} % of the test's")  # fmt: skip
    for rate in asked:
        first = choose(false_incidents(early.lineage), rate, DAY / every, ALPHA, SECONDS)
        count = len(incidents(judged, first.rule, every))
        days = len(normals[half:]) * every / DAY
        low, high = (bound / days for bound in poisson_interval(count))
        chosen = choose(false_incidents(version.lineage), rate, DAY / every, ALPHA, SECONDS)
        scores = [
            score_against_labels(incidents(s, chosen.rule, every), y, every) for s, y in tests
        ]
        print(
            f"  asked {rate:6.2f} a day: {chosen.rule.k} of {chosen.rule.m} rows, or severity "
            f"{chosen.rule.alone:.2f} ({chosen.calibration}); normals not used "
            f"{count / days:.2f} a day [{low:.2f}, {high:.2f}]; test {description(scores)}"
        )
        if not dismiss or every < MINUTE:
            continue  # no run of the pump lasts a day
        loops = [(*incidents_of_rows(version, X, rate, every), y) for X, y in stream.runs]
        scores = [score_against_labels(results, y, every) for results, _, y in loops]
        dismissed = sum(n for _, n, _ in loops)
        print(f"    {dismissed} regimes dismissed and learned: {description(scores)}")


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--asked", type=float, nargs="+", default=[30.0, 10.0, 3.0, 1.0, 1 / 7])
    parser.add_argument("--over", type=int, nargs="+", default=[0], help="rows of context")
    parser.add_argument("--dismiss", action="store_true", help="dismiss new regimes after a day")
    parser.add_argument("--only", default="", help="streams with this in their name")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings")
    args = parser.parse_args()
    for over in args.over:
        context = Context(over=over) if over else None
        for stream in streams():
            if args.only in stream.name:
                config = Config(context=context, seed=args.seed)
                report(stream.derived(context), config, args.asked, args.dismiss)


if __name__ == "__main__":
    main()
