"""How many rows it takes until a real change of the input, or of the scores, is found.

    OMP_NUM_THREADS=1 python -m benchmarks.drift_delays

A change begins at random places of normals that were not learned, after 2,000 rows without it:

- a tenth of the features of a server of SMD, drawn at random, moves by one standard deviation each,
  with the rows in the order of time and in random order (constant features are left out: their
  deviation is 0);
- every fifth row shows a digit that was not learned, in random order.

The alert comes an hour later than the rows that are printed here. A test that alarmed in the row
before the change is left out and counted. ADWIN is river's; it pages nobody.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import digits
from benchmarks.drift_pages import live_tests, looks
from benchmarks.incidents import streams
from benchmarks.report import parser_of
from models import Config, Version, train
from models.drift.finding import Verdict

BEFORE, AFTER = 2000, 4000  # rows without the change, and rows in which it is looked for
EACH = 20  # rows between two looks
SHARE = 10  # one of SHARE features is shifted

Rows = NDArray[np.float32]
Change = Callable[[Rows, np.random.Generator], Rows]


class Case(NamedTuple):
    """Normals `learned` (n, d), the normals after them `rest` (m, d), and the change of rows."""

    name: str
    learned: Rows
    rest: Rows
    change: Change


def alarms(verdict: Verdict) -> dict[str, bool]:
    """Return which tests alarm."""
    statistics = verdict.statistics
    tests = {
        "scores": statistics.martingale,
        "inputs": statistics.inputs,
        "ADWIN": statistics.adwin,
    }
    return {name: bool(test and test.alarm) for name, test in tests.items()}


def delays(version: Version, case: Case, rng: np.random.Generator) -> dict[str, float | None]:
    """Return the rows until each test finds the change: inf if never, None if it alarmed before."""
    start = int(rng.integers(0, max(1, len(case.rest) - BEFORE - AFTER)))
    quiet = case.rest[start : start + BEFORE]
    moved = case.change(case.rest[start + BEFORE : start + BEFORE + AFTER].copy(), rng)
    drift = live_tests(version, case.name)
    *_, (_, verdict) = looks(drift, version, quiet, EACH)
    delay_by_test = {name: None if alarm else np.inf for name, alarm in alarms(verdict).items()}
    for rows, verdict in looks(drift, version, moved, EACH):
        for name, alarm in alarms(verdict).items():
            if alarm and delay_by_test[name] == np.inf:
                delay_by_test[name] = float(rows)
        if np.inf not in delay_by_test.values():
            break
    return delay_by_test


def shifted(learned: Rows) -> Change:
    """Return a change by a deviation of `learned` (n, d) in a random tenth of the features."""
    deviations = learned.std(axis=0)
    movable = np.flatnonzero(deviations > 0)

    def change(X: Rows, rng: np.random.Generator) -> Rows:
        moved = rng.choice(movable, max(1, round(X.shape[1] / SHARE)), replace=False)
        X[:, moved] += deviations[moved] * rng.choice([-1, 1], len(moved)).astype(np.float32)
        return X

    return change


def replaced(others: Rows) -> Change:
    """Return a change that puts one of `others` (n, d) in the place of every fifth row."""

    def change(X: Rows, rng: np.random.Generator) -> Rows:
        rows = np.arange(0, len(X), 5)
        X[rows] = others[rng.integers(0, len(others), len(rows))]
        return X

    return change


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Yield the cases."""
    for stream in streams():
        if not stream.name.startswith("SMD"):
            continue
        X = stream.normals
        for order, rows in (("in time", X), ("unordered", X[rng.permutation(len(X))])):
            learned, rest = rows[: len(X) // 2], rows[len(X) // 2 :]
            yield Case(f"{stream.name}, {order}, shift", learned, rest, shifted(learned))
    seen, _ = digits(20_000, 0)
    known = np.concatenate([seen[digit] for digit in range(9)])
    known = known[rng.permutation(len(known))]
    yield Case("digit 9 among 0 to 8, unordered", known[:6000], known[6000:], replaced(seen[9]))


def main() -> None:
    """Print a line for each case and test."""
    parser = parser_of(__doc__)
    parser.add_argument("--changes", type=int, default=20)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for case in cases(rng):
        version = train(None, case.learned, Config())
        results = [delays(version, case, rng) for _ in range(args.changes)]
        for name in results[0]:
            rows = [
                delay_of_change[name]
                for delay_of_change in results
                if delay_of_change[name] is not None
            ]
            early = len(results) - len(rows)
            print(f"{case.name}; {name}: {early} of {len(results)} alarmed before; "
                  + (f"found {np.isfinite(rows).sum()} of {len(rows)}, median {np.median(rows):.0f}"
                     f" rows, slowest {np.max(rows):.0f}" if rows else "none left"),
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
