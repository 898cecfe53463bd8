"""Difficult kinds of data, learned once and then three more times, on the path of the service.

A version is trained, calibrated, saved and loaded. Each of three updates learns fresh normals of
the same kind by replay. The table shows which share of fresh normals alarms (`held`) and which
share of plain anomalies is found, at 1 % asked, after the first training and after the last; the
range is over the seeds. The fifth nearest neighbour and the isolation forest of scikit-learn learn
the rows of the first training; their threshold is the score that 1 % of the fresh normals reach.

    python -m benchmarks.stranger_updates --seeds 0 1 2 3 4 --cases "counter" "60 rows"
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from scipy.signal import lfilter
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from benchmarks.report import parser_of
from models import Config, Version, train

ASKED = 0.01
TESTED = 2_000


class World(NamedTuple):
    """Functions of a number of rows: normals to learn, normals to judge, and anomalies."""

    learn: Callable
    judge: Callable
    anomalies: Callable


class Plant:
    """Six sensors that follow two common causes, with noise a fifth as large."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([seed, 41])
        self.mix = self.rng.normal(size=(2, 6))

    def rows(self, n):
        """Return n normals, (n, 6)."""
        return self.rng.normal(size=(n, 2)) @ self.mix + 0.2 * self.rng.normal(size=(n, 6))

    def off(self, rows, by=3.0):
        """Return the rows (n, d) with one random sensor of each moved up or down by `by`."""
        rows = rows.copy()
        column = self.rng.integers(6, size=len(rows))
        rows[np.arange(len(rows)), column] += by * self.rng.choice([-1, 1], len(rows))
        return rows


def plain(seed, make=lambda x: x):
    """Return a world whose rows are those of a plant, changed by `make`."""
    plant = Plant(seed)

    def rows(n):
        return make(plant.rows(n))

    return World(rows, rows, lambda n: make(plant.off(plant.rows(n))))


def times(seed, unit):
    """Column 0 is the time since 1970, a row a minute; later days are judged."""
    plant, minute = Plant(seed), 0

    def rows(n, change=lambda x: x):
        nonlocal minute
        at = unit * (1.78e9 + 60.0 * (minute + np.arange(n)))
        minute += n
        return np.column_stack([at, change(plant.rows(n))])

    return World(rows, rows, lambda n: rows(n, plant.off))


def counter(seed, every):
    """Column 0 counts parts, a few a row, and starts again at 0 about once in `every` rows."""
    plant, count = Plant(seed), 0.0

    def rows(n, change=lambda x: x):
        nonlocal count
        made, again = plant.rng.poisson(5, n), plant.rng.random(n) < 1.0 / every
        counts = np.empty(n)
        for i in range(n):
            count = 0.0 if again[i] else count + made[i]
            counts[i] = count
        return np.column_stack([counts, change(plant.rows(n))])

    return World(rows, rows, lambda n: rows(n, plant.off))


def codes(seed):
    """Five columns of codes follow from a product; in anomalies one code is another's."""
    rng = np.random.default_rng([seed, 42])
    table = rng.integers(6, size=(12, 5))
    share = rng.dirichlet(np.full(12, 2.0))

    def rows(n):
        return table[rng.choice(12, n, p=share)].astype(float)

    def anomalies(n):
        known, found = {tuple(row) for row in table}, []
        while len(found) < n:
            row = rows(1)[0]
            row[rng.integers(5)] = rng.integers(6)
            if tuple(row) not in known:
                found.append(row)
        return np.array(found)

    return World(rows, rows, anomalies)


def points(seed):
    """Rows are drawn from 200 points; in anomalies each column is drawn by itself."""
    plant = Plant(seed)
    table = plant.rows(200)

    def rows(n):
        return table[plant.rng.integers(200, size=n)]

    def anomalies(n):
        return np.column_stack([plant.rng.choice(table[:, j], n) for j in range(6)])

    return World(rows, rows, anomalies)


def two_regimes(seed, share, *, judge_small):
    """Return a world in which a second regime has a share of the rows; all or these are judged."""
    plant = Plant(seed)
    shift = 6.0 * plant.rng.choice([-1, 1], 6)

    def rows(n):
        return plant.rows(n) + np.outer(plant.rng.random(n) < share, shift)

    def small(n):
        return plant.rows(n) + shift

    judge = small if judge_small else rows
    return World(rows, judge, lambda n: plant.off(judge(n)))


def twice(seed):
    """Each row is sent twice, one after the other."""
    plant = Plant(seed)
    return World(
        lambda n: np.repeat(plant.rows(n // 2), 2, axis=0),
        plant.rows,
        lambda n: plant.off(plant.rows(n)),
    )


def season(seed, trend):
    """Columns follow a day of 144 rows and rise by `trend` deviations a thousand rows."""
    plant, at = Plant(seed), 0

    def rows(n, change=lambda x: x):
        nonlocal at
        t = at + np.arange(n)
        at += n
        day = 2.0 * np.sin(2 * np.pi * t / 144)
        return change(plant.rows(n)) + np.column_stack([day] * 6) + trend * t[:, None] / 1_000

    return World(rows, rows, lambda n: rows(n, plant.off))


def slow(seed, kept):
    """Each cause and each noise keeps the share `kept` of its value; every 30th row is judged."""
    plant, state = Plant(seed), np.zeros(8)

    def rows(n, every=1):
        nonlocal state
        steps = plant.rng.normal(size=(n * every, 8)) * np.sqrt(1.0 - kept**2)
        series, _ = lfilter([1.0], [1.0, -kept], steps, axis=0, zi=kept * state[None])
        state = series[-1]
        return (series[:, :2] @ plant.mix + 0.2 * series[:, 2:])[::every]

    rows(1_000)
    return World(rows, lambda n: rows(n, 30), lambda n: plant.off(rows(n, 30)))


def last_values(seed):
    """Nine of ten rows repeat the row before."""
    plant = Plant(seed)

    def rows(n):
        at = np.where(plant.rng.random(n) < 0.1, np.arange(n), 0)
        return plant.rows(n)[np.maximum.accumulate(at)]

    return World(rows, lambda n: rows(30 * n)[::30], lambda n: plant.off(rows(30 * n)[::30]))


CASES = {
    "plain": (1_000, plain),
    "32 rows": (32, plain),
    "40 rows": (40, plain),
    "60 rows": (60, plain),
    "100 rows": (100, plain),
    "100 rows of related codes": (100, codes),
    "1,000 rows of related codes": (1_000, codes),
    "seconds since 1970": (1_440, lambda s: times(s, 1.0)),
    "milliseconds since 1970": (1_440, lambda s: times(s, 1_000.0)),
    "a counter with a reset in 300 rows": (1_000, lambda s: counter(s, 300)),
    "a counter with a reset in 50 rows": (1_000, lambda s: counter(s, 50)),
    "200 points that repeat": (1_000, points),
    "97 % and 3 %, all judged": (1_500, lambda s: two_regimes(s, 0.03, judge_small=False)),
    "97 % and 3 %, the 3 % judged": (1_500, lambda s: two_regimes(s, 0.03, judge_small=True)),
    "40 of 1,040 shuffled, the 40 judged": (
        1_040,
        lambda s: two_regimes(s, 0.0385, judge_small=True),
    ),
    "saturated sensors": (1_000, lambda s: plain(s, lambda x: np.clip(x, -1.0, 1.0))),
    "rows that come twice": (1_000, twice),
    "slow sensors, 0.97": (500, lambda s: slow(s, 0.97)),
    "slow sensors, 0.99": (2_000, lambda s: slow(s, 0.99)),
    "slow sensors, 0.999": (2_000, lambda s: slow(s, 0.999)),
    "last values held": (1_000, last_values),
    "a season": (1_000, lambda s: season(s, 0.0)),
    "a season with a trend": (1_000, lambda s: season(s, 0.2)),
}


def loaded(version):
    """Return the version as another process loads it from its artifact."""
    with tempfile.TemporaryDirectory() as folder:
        version.save(Path(folder) / "version")
        return Version.load(Path(folder) / "version")


def measured(rows, make, seed, updates=3):
    """Return held and found shares, first and last, then found by 5-NN and isolation forest."""
    world, version, shares, first = make(seed), None, [], None
    for _ in range(1 + updates):
        X = world.learn(rows).astype(np.float32)
        first = X if first is None else first
        version = loaded(train(version, X, Config(seed=seed)))
        normals, anomalies = (f(TESTED).astype(np.float32) for f in (world.judge, world.anomalies))
        shares.append([version.is_anomaly(rows).mean() for rows in (normals, anomalies)])
    world = make(seed)
    x, normals, anomalies = world.learn(rows), world.judge(TESTED), world.anomalies(TESTED)
    mean, scale = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    x, normals, anomalies = ((X - mean) / scale for X in (x, normals, anomalies))
    near = NearestNeighbors(n_neighbors=5).fit(x)
    forest = IsolationForest(random_state=seed).fit(x)
    simple = []
    for score in (lambda X: near.kneighbors(X)[0][:, -1], lambda X: -forest.score_samples(X)):
        threshold = np.quantile(score(normals), 1.0 - ASKED, method="higher")
        simple.append((score(anomalies) >= threshold).mean())
    return [*shares[0], *shares[-1], *simple]


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="words of case names")
    parser.add_argument("--updates", type=int, default=3)
    args = parser.parse_args()
    print("| data | held: first | last | found: first | last | 5-NN | forest |")
    print("|---|---|---|---|---|---|---|")
    for name, (rows, make) in CASES.items():
        if not any(word in name for word in args.cases):
            continue
        results = np.array([measured(rows, make, seed, args.updates) for seed in args.seeds])
        low, mean, high = (100 * f(results, axis=0) for f in (np.min, np.mean, np.max))
        cells = [
            f"{mean[j]:.1f} ({low[j]:.1f} to {high[j]:.1f}) %" if j < 4 else f"{mean[j]:.0f} %"
            for j in (0, 2, 1, 3, 4, 5)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
