"""More kinds of data: learned once, then more of the same, then another regime of the kind.

After each of the three trainings the table shows which share of fresh normals alarms (`held`) and
which share of anomalies is found, at 1 % asked, then the share of the new regime's normals that
alarms. All other normals and anomalies are of the first regime. `named` is the share of found
anomalies whose wrong column is the first reason. The fifth nearest neighbour, the Mahalanobis
distance and the isolation forest learn the rows of the first training; 1 % of the fresh normals
reach their threshold. The gate is not asked.

    python -m benchmarks.stranger_regimes --seeds 0 1 2 3 4 --cases "total" "angles"
"""

import os
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks.learners import Peer
from benchmarks.report import parser_of
from benchmarks.stranger_updates import ASKED, TESTED, loaded
from models import Config, train
from models.parts.statistics import auroc

PEERS = ("5-NN", "Mahalanobis", "IForest")
EXPLAINED = 60  # the most anomalies whose reasons are asked for


def unchanged(_rng, x):
    """Return the rows x."""
    return x


class Kind(NamedTuple):
    """`rows(rng, n, regime)` returns n normals of regime 0 or 1.

    `wrong(rng, x)` makes the rows x anomalies in place and returns the changed column of each.
    `change(rng, x)` returns what a detector gets of normals and anomalies x.
    """

    rows: Callable
    wrong: Callable
    change: Callable = unchanged
    learned: int = 1_000


MIX = np.random.default_rng([41]).normal(size=(2, 6))


def sensors(rng, n, regime):
    """Return six sensors of two causes; in the second regime three of them shift."""
    shift = np.array([4.0, -3.0, 0.0, 0.0, 2.0, 0.0]) * regime
    return rng.normal(size=(n, 2)) @ MIX + 0.2 * rng.normal(size=(n, 6)) + shift


def moved(rng, x, by=3.0, among=None):
    """Move one random column of each row, of those `among`, up or down by `by`."""
    column = rng.choice(x.shape[1] if among is None else among, len(x))
    x[np.arange(len(x)), column] += by * rng.choice([-1, 1], len(x))
    return column


def clipped(_rng, x):
    """Clip the rows at both ends."""
    return np.clip(x, -1.0, 1.0)


def in_steps(_rng, x):
    """Round the rows to halves."""
    return np.round(2.0 * x) / 2.0


def twice(_rng, x):
    """Append each column again."""
    return np.c_[x, x[:, ::-1]]


def tiny_and_huge(_rng, x):
    """Measure two columns in very small and very large units."""
    return x * [1e-12, 1.0, 1e12, 1.0, 1.0, 1.0]


def two_units(rng, x):
    """Put three of ten values of column 0 into watts, the others into kilowatts."""
    x[:, 0] = (x[:, 0] + 10.0) * np.where(rng.random(len(x)) < 0.3, 1_000.0, 1.0)
    return x


def blocks_filled(rng, x):
    """Fill stretches of 25 rows of two columns with their mean."""
    gone = np.repeat(rng.random(len(x) // 25 + 1) < 0.15, 25)[: len(x)]
    x[np.ix_(gone, [2, 3])] = 0.0
    return x


def total(rng, n, regime):
    """Return parts and their total; in the second regime they are three times as large."""
    parts = rng.gamma(3.0, 10.0 * 3.0**regime, (n, 5))
    return np.c_[parts, parts.sum(axis=1)]


def related(rng, n, regime):
    """Return sensors; the causes of the second regime vary twelve times as much, not its noise."""
    causes = rng.normal(size=(n, 2)) * 12.0**regime
    return causes @ MIX + 0.05 * rng.normal(size=(n, 6))


def durations(rng, n, regime):
    """Return four columns of ones and zeros that name a job, and its duration."""
    job = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    duration = np.array([1.0, 5.0, 20.0, 100.0])[job] * rng.lognormal(0.0, 0.3, n)
    return np.c_[np.eye(4)[job], duration, rng.normal(size=n) + 6.0 * regime]


def wrong_duration(rng, x):
    """Give a job the duration of another one."""
    other = (x[:, :4].argmax(axis=1) + rng.integers(1, 4, len(x))) % 4
    x[:, 4] = np.array([1.0, 5.0, 20.0, 100.0])[other] * rng.lognormal(0.0, 0.3, len(x))
    return np.full(len(x), 4)


def clock(rng, n, regime):
    """Return hours and loads that follow them; in the second regime the clock is an hour later."""
    hour = rng.integers(0, 24, n)
    load = 3.0 * np.sin(2.0 * np.pi * (hour - 8 + regime) / 24)
    noise = rng.normal(size=(n, 3))
    return np.c_[hour, load + 0.2 * noise[:, 0], 0.5 * load + 0.2 * noise[:, 1], noise[:, 2]]


def weekdays(rng, n, regime):
    """Return days and sensors whose level depends on them; the second regime is the weekend."""
    day = rng.integers(5, 7, n) if regime else rng.integers(0, 5, n)
    x = sensors(rng, n, 0)
    x = 0.5 * x - 3.0 if regime else x + np.array([0.0, 0.5, 1.0, 0.5, -1.0])[day][:, None]
    return np.c_[day, x]


def counts(rng, n, regime):
    """Return counts that vary more than Poisson's; later some means are four times as large."""
    means = np.array([2, 5, 10, 20, 50, 0.3]) * np.where([1, 0, 1, 0, 0, 1], 4.0**regime, 1.0)
    return rng.poisson(rng.gamma(2.0, 1.0, (n, 1)) * means).astype(float)


def wrong_count(rng, x):
    """Triple a count and add ten, or make it 0."""
    column = rng.integers(1, 5, len(x))
    at = np.arange(len(x)), column
    x[at] = np.where(rng.random(len(x)) < 0.5, 3.0 * x[at] + 10.0, 0.0)
    return column


def ages(rng, n, regime):
    """Return ages and incomes, which are often rounded."""
    age = rng.normal(45.0, 15.0, n).clip(18, 90)
    age = np.where(rng.random(n) < 0.4, np.round(age / 5) * 5, np.round(age))
    income = 800 * age + rng.normal(0.0, 4_000, n) + 60_000 * regime
    income = np.where(rng.random(n) < 0.5, np.round(income, -3), np.round(income))
    return np.c_[age, income, np.round(age / 10 + rng.normal(0.0, 0.7, n)).clip(0) + 6 * regime]


def prices(rng, n, regime):
    """Return prices that end in .99, numbers, and their product."""
    price = np.floor(rng.lognormal(2.5 + 2.5 * regime, 0.7, n)) + 0.99
    number = rng.poisson(3, n) + 1.0
    return np.c_[price, number, np.round(price * number, 2), rng.integers(1, 6, n)]


def percents(rng, n, regime):
    """Return five shares that add up to 100."""
    return np.round(100.0 * rng.dirichlet([8, 5, 3, 2, 1][:: 1 - 2 * regime], n), 1)


def angles(rng, n, regime):
    """Return two angles that differ by a right angle and wrap at 360."""
    angle = rng.normal(350.0 - 180.0 * regime, 20.0, n) % 360
    return np.c_[angle, (angle + 90.0 + rng.normal(0.0, 4.0, n)) % 360, rng.normal(size=n)]


def wrong_angle(rng, x):
    """Turn the second angle by 40 degrees."""
    x[:, 1] = (x[:, 1] + 40.0 * rng.choice([-1, 1], len(x))) % 360
    return np.full(len(x), 1)


def amounts(rng, n, regime):
    """Return amounts over six decades; the ratio of two of them hardly varies."""
    amount = 10.0 ** (rng.uniform(0.0, 6.0, n) + regime)
    return np.c_[amount, amount * rng.lognormal(0.0, 0.1, n), 10.0 ** rng.normal(3.0, 1.0, n)]


def times(factor, column):
    """Return a function that multiplies or divides the column by the factor."""

    def wrong(rng, x):
        x[:, column] *= factor ** rng.choice([-1.0, 1.0], len(x))
        return np.full(len(x), column)

    return wrong


def plus(by, column):
    """Return a function that moves the column up or down."""
    return lambda rng, x: moved(rng, x, by, [column])


def heavy_tails(rng, n, regime):
    """Return sensors with noise of Student's distribution with two degrees of freedom."""
    causes = rng.normal(size=(n, 2)) @ MIX
    return causes + 0.2 * rng.standard_t(2, (n, 6)) + np.array([8, -6, 0, 0, 4, 0]) * regime


def flags(rng, n, regime):
    """Return flags; 3 and 4 follow from the first three. The second regime has other shares."""
    flag = rng.random((n, 3)) < np.array([0.5, 0.3, 0.7])[:: 1 - 2 * regime]
    return np.c_[flag, flag[:, 0] & flag[:, 1], flag[:, 1] ^ flag[:, 2], rng.random(n) < 0.1] * 1.0


def wrong_flag(rng, x):
    """Turn one of the two flags that follow from others."""
    column = rng.integers(3, 5, len(x))
    x[np.arange(len(x)), column] = 1.0 - x[np.arange(len(x)), column]
    return column


def one_column(rng, n, regime):
    """Return one column of two modes; the second regime is a third one."""
    return (rng.normal(size=n) + (40.0 if regime else 12.0 * (rng.random(n) < 0.5)))[:, None]


def between(rng, x):
    """Put the value between the modes."""
    x[:, 0] = rng.normal(6.0, 0.5, len(x))
    return np.zeros(len(x), int)


def switched_on(rng, n, regime):
    """Return sensors and a column that is constant at first, later a flag."""
    return np.c_[sensors(rng, n, 0), (rng.random(n) < 0.2) * float(regime)]


CASES = {
    "watts and kilowatts in one column": Kind(sensors, moved, two_units),
    "a total, and parts three times as large": Kind(total, plus(25.0, 5)),
    "related sensors, then twelve times as wide": Kind(related, lambda r, x: moved(r, x, 0.6)),
    "ones and zeros with durations": Kind(durations, wrong_duration),
    "hours, then another clock": Kind(clock, plus(2.0, 1)),
    "work days, then the weekend": Kind(weekdays, lambda r, x: moved(r, x, 3.0, range(1, 7))),
    "sensors clipped at both ends": Kind(sensors, moved, clipped),
    "steps of half a unit": Kind(sensors, moved, in_steps),
    "counts that vary much": Kind(counts, wrong_count),
    "ages and incomes, rounded": Kind(ages, plus(22_000.0, 1)),
    "prices that end in .99": Kind(prices, times(2.0, 2)),
    "shares of 100 %": Kind(percents, lambda r, x: moved(r, x, 10.0)),
    "angles that wrap": Kind(angles, wrong_angle),
    "amounts over six decades: ratio times 3": Kind(amounts, times(3.0, 1)),
    "each column twice": Kind(sensors, moved, twice),
    "a constant, later a flag": Kind(switched_on, lambda r, x: moved(r, x, 3.0, range(6))),
    "blocks filled with the mean": Kind(sensors, moved, blocks_filled),
    "noise with heavy tails": Kind(heavy_tails, lambda r, x: moved(r, x, 8.0)),
    "values of 1e-12 and 1e12": Kind(sensors, moved, tiny_and_huge),
    "flags": Kind(flags, wrong_flag),
    "one column": Kind(one_column, between),
    "60 rows": Kind(sensors, moved, learned=60),
}


def measured(kind, seed):
    """Return the figures of a kind of data: those of the table's columns."""
    rng = np.random.default_rng([seed, 43])

    def normals(n, regime=0):
        return kind.change(rng, kind.rows(rng, n, regime)).astype(np.float32)

    def anomalies():
        x = kind.rows(rng, TESTED, 0)
        columns = kind.wrong(rng, x)
        return kind.change(rng, x).astype(np.float32), columns

    first = normals(kind.learned)
    version, held, found = None, [], []
    for x in (first, normals(kind.learned), normals(kind.learned, 1)):
        version = loaded(train(version, x, Config(seed=seed)))
        fresh, (wrong, columns) = normals(TESTED), anomalies()
        held.append(version.is_anomaly(fresh).mean())
        alarms = version.is_anomaly(wrong)
        found.append(alarms.mean())
        if len(held) == 1:
            area = auroc(version.score(fresh), version.score(wrong))
            shown = np.flatnonzero(alarms)[:EXPLAINED]
            reasons = version.explain(wrong[shown], 1)
            pairs = zip(reasons, columns[shown], strict=True)
            named = np.mean([of_row[0].feature == str(j) for of_row, j in pairs])
    new = version.is_anomaly(normals(TESTED, 1)).mean()
    simple = []
    for name in PEERS:
        peer = Peer(name, seed, scaled=True)
        peer.learn(first)
        at = np.quantile(peer.score(fresh), 1.0 - ASKED, method="higher")
        simple.append((peer.score(wrong) >= at).mean())
    return [*held, new, *found, named, *simple, area]


def print_table(cases, text):
    """Print the table of those `cases` {name: Kind} that are asked for; `text` is the help."""
    parser = parser_of(text)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", nargs="+", default=list(cases), help="words of case names")
    args = parser.parse_args()
    heads = ["data", "held: first", "same", "new", "of the new", "found: first", "same", "new"]
    heads += ["named", *PEERS, "AUROC"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, kind in cases.items():
        if not any(word in name for word in args.cases):
            continue
        results = np.array([measured(kind, seed) for seed in args.seeds])
        low, mean, high = (100 * f(results, axis=0) for f in (np.min, np.mean, np.max))
        cells = [f"{mean[j]:.1f} ({low[j]:.1f} to {high[j]:.1f})" for j in range(4)]
        cells += [f"{mean[j]:.0f}" for j in range(4, 11)]
        print(f"| {name} | {' | '.join(cells)} | {mean[11] / 100:.3f} |", flush=True)


if __name__ == "__main__":
    print_table(CASES, __doc__)
