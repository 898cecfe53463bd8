"""Difficult kinds of data, judged by the default detector and by simple detectors.

Each case is generated with a seed: placeholders and spikes among normals, a narrow first regime,
few rows of a new regime, ten regimes, a column that hardly varies, sensors that hardly differ,
features over decades, a column of times, more columns than rows. A detector learns the experiences
one after another, as the service does: an experience that the gate rejects is not learned. The
figures are AUROC, the share of the anomalies that is found, and the share of other normals that
alarms (`held`), both at 1 % asked.

The simple detectors learn the same rows all at once. They are the distance to the fifth nearest
neighbour and the residual of 3 principal components. Their features are divided by the quartile
range or, if that is 0, by the deviation. Their threshold is the score that 1 % of the test normals
reach.

    python -m benchmarks.stranger_data --seeds 0 1 2 3 4

`--tails` asks for a rate of 1e-4 on scores with light and heavy tails: the shares of further draws
above the threshold, relative to 1e-4. `--reasons` sets one column of a normal row to the largest
value that was learned: the share of the alarms whose first reason is that column.
"""

import os
import sys
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from benchmarks import data
from benchmarks.report import parser_of
from models import Config, train
from models.decisions.evidence import gather
from models.decisions.gate import gate
from models.parts.calibration import Calibration
from models.parts.statistics import auroc

ASKED = 0.01
AUROCS = (0, 3, 5)  # the columns of figures that are no shares
TESTED = 500


class Case(NamedTuple):
    """The experiences, later normals of all regimes, and anomalies."""

    experiences: list
    normals: np.ndarray
    anomalies: np.ndarray


class Machine:
    """Eight sensors that follow three common causes, with noise a tenth as large."""

    def __init__(self, seed):
        self.rng = np.random.default_rng([seed, 15])
        self.mix = self.rng.normal(size=(3, 8))
        self.noise = 0.1

    def rows(self, n, spread=1.0, shift=0.0):
        """Return n normals, (n, 8)."""
        causes = self.rng.normal(size=(n, 3))
        return shift + spread * (causes @ self.mix + self.noise * self.rng.normal(size=(n, 8)))

    def broken(self, rows, by):
        """Return the rows (n, 8) with one random sensor of each moved up or down by `by`."""
        rows = rows.copy()
        column = self.rng.integers(8, size=len(rows))
        rows[np.arange(len(rows)), column] += by * self.rng.choice([-1, 1], len(rows))
        return rows


def with_placeholders(seed, share, value, *, everywhere=False):
    machine = Machine(seed)
    first = machine.rows(1_000)
    wild = machine.rng.permutation(1_000)[: int(share * 1_000)]
    if everywhere:
        first[wild] = value
    else:
        first[wild, machine.rng.integers(8, size=len(wild))] = value
    normals = machine.rows(TESTED)
    return Case([first], normals, machine.broken(machine.rows(TESTED), 4.0))


def narrow(seed, spread, shift, faulty):
    """Return a regime, then one `spread` times as wide, and faults in the regime `faulty`."""
    machine = Machine(seed)
    experiences = [machine.rows(1_000), machine.rows(1_000, spread, shift)]
    normals = np.concatenate([machine.rows(TESTED), machine.rows(TESTED, spread, shift)])
    shape = (1.0, 0.0) if faulty == 0 else (spread, shift)
    return Case(experiences, normals, machine.broken(machine.rows(TESTED, *shape), 4.0 * shape[0]))


def fahrenheit(seed):
    machine = Machine(seed)
    sent = [20 + machine.rows(1_000), 1.8 * (20 + machine.rows(1_000)) + 32]
    normals = np.concatenate([20 + machine.rows(TESTED), 1.8 * (20 + machine.rows(TESTED)) + 32])
    return Case(sent, normals, 1.8 * (20 + machine.broken(machine.rows(TESTED), 4.0)) + 32)


def constant_that_varies(seed):
    """Column 0 is constant at first; later it follows the others, in large units."""
    machine = Machine(seed)

    def alive(n):
        rows = machine.rows(n)
        rows[:, 0] = 5_000 + 1_000 * rows[:, 0]
        return rows

    first = machine.rows(1_000)
    first[:, 0] = 5_000
    still = machine.rows(TESTED)
    still[:, 0] = 5_000
    anomalies = alive(TESTED)
    anomalies[:, 0] += 4_000 * machine.rng.choice([-1, 1], TESTED)
    return Case([first, alive(1_000)], np.concatenate([still, alive(TESTED)]), anomalies)


def few_rows_of_a_regime(seed):
    """Fifty rows of a new regime come after many; only its rows are judged as normals."""
    machine = Machine(seed)
    shift = 6.0 * machine.rng.choice([-1, 1], 8)
    experiences = [machine.rows(4_000), machine.rows(50, shift=shift)]
    normals = machine.rows(TESTED, shift=shift)
    return Case(experiences, normals, machine.broken(machine.rows(TESTED, shift=shift), 6.0))


def ten_regimes(seed):
    """Ten regimes come one after another, each once; all are judged."""
    machine = Machine(seed)
    shifts = [6.0 * machine.rng.choice([-1, 1], 8) * machine.rng.random(8) for _ in range(10)]
    normals = np.concatenate([machine.rows(TESTED, shift=shift) for shift in shifts])
    anomalies = machine.broken(normals[machine.rng.permutation(len(normals))[:TESTED]], 4.0)
    return Case([machine.rows(1_000, shift=shift) for shift in shifts], normals, anomalies)


def column_of_times(seed):
    """Column 0 is the time in seconds since 1970, a row a minute; the next day is judged."""
    machine = Machine(seed)

    def day(number):
        at = 1.78e9 + 86_400 * number + 60.0 * np.arange(1_440)
        return np.column_stack([at, machine.rows(1_440)])

    anomalies = day(1)
    anomalies[:, 1:] = machine.broken(anomalies[:, 1:], 4.0)
    return Case([day(0)], day(1), anomalies)


def small_move_of_a_constant(seed):
    machine = Machine(seed)

    def rows(n):
        return np.column_stack([machine.rows(n), np.full(n, 0.1)])

    anomalies = rows(TESTED)
    anomalies[:, 8] = machine.rng.uniform(0.101, 0.15, TESTED)
    return Case([rows(1_000)], rows(TESTED), anomalies)


def nearly_equal_sensors(seed, hundredths):
    """Sensors 0 and 1 differ by 0.01; in anomalies, by `hundredths` / 100 more."""
    machine = Machine(seed)

    def rows(n):
        rows = machine.rows(n)
        rows[:, 1] = rows[:, 0] + 0.01 * machine.rng.normal(size=n)
        return rows

    anomalies = rows(TESTED)
    anomalies[:, 1] += 0.01 * hundredths * machine.rng.choice([-1, 1], TESTED)
    return Case([rows(1_000)], rows(TESTED), anomalies)


def repeated_rows(seed, rows=100, times=50, jitter=0.0):
    """Each of the rows comes several times, shuffled; other rows are judged as normals."""
    machine = Machine(seed)
    sent = machine.rng.permutation(np.repeat(machine.rows(rows), times, axis=0))
    sent += jitter * machine.rng.normal(size=sent.shape)
    normals = machine.rows(4 * TESTED)
    return Case([sent], normals, machine.broken(machine.rows(TESTED), 4.0))


def short_regime_at_the_end(seed):
    """Forty rows of another regime follow a thousand; faults of the first regime are judged."""
    machine = Machine(seed)
    shift = 6.0 * machine.rng.choice([-1, 1], 8)
    sent = np.concatenate([machine.rows(1_000), machine.rows(40, shift=shift)])
    return Case([sent], machine.rows(TESTED), machine.broken(machine.rows(TESTED), 4.0))


def flags(seed):
    """Eight flags, of which the first two are equal; in anomalies they differ."""
    rng = np.random.default_rng([seed, 23])

    def rows(n):
        x = rng.random((n, 8)) < [0.5, 0.5, 0.9, 0.02, 0.98, 0.3, 0.7, 0.5]
        x[:, 1] = x[:, 0]
        return x.astype(float)

    anomalies = rows(TESTED)
    anomalies[:, 1] = 1.0 - anomalies[:, 0]
    return Case([rows(1_000)], rows(4 * TESTED), anomalies)


def between_modes(seed):
    """Column 0 is about -5 or about 5; in anomalies it is about 0, which is the mean."""
    machine = Machine(seed)

    def rows(n, at):
        return np.column_stack([at + 0.5 * machine.rng.normal(size=n), machine.rows(n)])

    def normals(n):
        return rows(n, machine.rng.choice([-5.0, 5.0], n))

    return Case([normals(1_000)], normals(TESTED), rows(TESTED, np.zeros(TESTED)))


def over_decades(seed):
    """Bytes and packets span decades, their ratio hardly varies; in anomalies it is tripled."""
    rng = np.random.default_rng([seed, 26])

    def rows(n):
        packets = np.exp(5.0 + 2.5 * rng.normal(size=n))
        load = packets * np.exp(6.0 + 0.15 * rng.normal(size=n))
        return np.column_stack(
            [load, packets, np.exp(1.5 * rng.normal(size=n)), rng.normal(size=n)]
        )

    anomalies = rows(TESTED)
    anomalies[:, 0] *= 3.0 ** rng.choice([-1, 1], TESTED)
    return Case([rows(2_000)], rows(TESTED), anomalies)


def wide_rows(seed, columns, by):
    """600 rows of 5,000 columns with ten causes; in anomalies some columns are shifted."""
    rng = np.random.default_rng([seed, 27])
    mix = rng.normal(size=(10, 5_000)) / np.sqrt(10)

    def rows(n):
        return np.sqrt(0.5) * (rng.normal(size=(n, 10)) @ mix + rng.normal(size=(n, 5_000)))

    anomalies = rows(TESTED)
    for row in anomalies:
        row[rng.permutation(5_000)[:columns]] += by * rng.choice([-1, 1], columns)
    return Case([rows(600)], rows(TESTED), anomalies)


CASES = {
    "-9999 in a column of 1 % of the rows": lambda s: with_placeholders(s, 0.01, -9_999),
    "-9999 in all columns of 1 %": lambda s: with_placeholders(s, 0.01, -9_999, everywhere=True),
    "1e6 in a column of 5 %": lambda s: with_placeholders(s, 0.05, 1e6),
    "then eight times as wide: old faults": lambda s: narrow(s, 8.0, 0.0, 0),
    "then eight times as wide: new faults": lambda s: narrow(s, 8.0, 0.0, 1),
    "idle, then running: faults running": lambda s: narrow(s, 30.0, 100.0, 1),
    "idle, then running: faults idle": lambda s: narrow(s, 30.0, 100.0, 0),
    "100 deviations away": lambda s: narrow(s, 1.0, 170.0, 1),
    "Celsius, then Fahrenheit": fahrenheit,
    "a constant column comes alive": constant_that_varies,
    "50 rows of a new regime after 4,000": few_rows_of_a_regime,
    "ten regimes, one after another": ten_regimes,
    "a column of seconds since 1970: the next day": column_of_times,
    "a constant column moves a little": small_move_of_a_constant,
    "equal sensors part by 6 deviations": lambda s: nearly_equal_sensors(s, 6.0),
    "equal sensors part by 20": lambda s: nearly_equal_sensors(s, 20.0),
    "100 rows that come 50 times each": repeated_rows,
    "100 rows 50 times, with a jitter": lambda s: repeated_rows(s, jitter=0.001),
    "200 rows 5 times, with a jitter": lambda s: repeated_rows(s, 200, 5, jitter=0.001),
    "40 rows of a regime at the end of 1,040": short_regime_at_the_end,
    "eight flags, one of them wrong": flags,
    "a value between two modes": between_modes,
    "bytes and packets over decades: ratio times 3": over_decades,
    "600 rows of 5,000 columns: one off by 12": lambda s: wide_rows(s, 1, 12.0),
    "600 rows of 5,000 columns: 50 off by 6": lambda s: wide_rows(s, 50, 6.0),
}


def figures_of_this_project(case, config):
    """Return the figures of this project's detector on a case, and the gate's reasons."""
    champion, reasons_given = None, []
    for experience in case.experiences:
        candidate = train(champion, experience.astype(np.float32), config)
        evidence = candidate.lineage.evidence
        if champion is not None:
            evidence = gather(candidate, champion)
        verdict = gate(evidence)
        reasons_given += verdict.reasons
        champion = candidate if verdict.passed else champion
    normal, anomalous = (champion.score(X.astype(np.float32)) for X in case[1:])
    return figures(normal, anomalous, champion.threshold), reasons_given


def figures(normal, anomalous, threshold):
    return (
        auroc(normal, anomalous),
        float((anomalous >= threshold).mean()),
        float((normal >= threshold).mean()),
    )


def figures_of_simple_detectors(case):
    """Return the figures of simple detectors that keep all rows."""
    learned = np.concatenate(case.experiences)
    low, high = np.quantile(learned, (0.25, 0.75), axis=0)
    scale = np.where(high > low, high - low, learned.std(axis=0))
    scale[scale == 0.0] = 1.0
    x, normal, anomalous = (X / scale for X in (learned, *case[1:]))
    near = NearestNeighbors(n_neighbors=5).fit(x)
    pca = PCA(3).fit(x)

    def distance(X):
        return near.kneighbors(X)[0][:, -1]

    def residual(X):
        return np.linalg.norm(X - pca.inverse_transform(pca.transform(X)), axis=1)

    for score in (distance, residual):
        of_normals = score(normal)
        threshold = np.quantile(of_normals, 1.0 - ASKED, method="higher")
        yield figures(of_normals, score(anomalous), threshold)


TAILS = {
    "normal, squared": lambda rng, n: rng.normal(size=n) ** 2,
    "exponential": lambda rng, n: rng.exponential(size=n),
    "log-normal": lambda rng, n: np.exp(rng.normal(size=n)),
    "Student, 2 degrees": lambda rng, n: np.abs(rng.standard_t(2, size=n)),
    "Pareto, shape 1": lambda rng, n: 1.0 / rng.random(n),
    "Pareto, shape 1.5": lambda rng, n: rng.random(n) ** -1.5,
}
RARE = 1e-4
TRIALS = 200


def tails():
    """Print how often scores exceed a threshold for one in ten thousand, by calibration size."""
    print("| scores | normals | mean | median | nine in ten are below |")
    print("|---|---|---|---|---|")
    for name, draw in TAILS.items():
        rng = np.random.default_rng(26)
        later = np.sort(draw(rng, 5_000_000))
        for n in (200, 1_000, 2_000, 4_000):
            results = []
            for _ in range(TRIALS):
                at = Calibration(np.sort(draw(rng, n))).threshold({"fpr": RARE}).value
                results.append((1.0 - later.searchsorted(at) / len(later)) / RARE)
            print(
                f"| {name} | {n} | {np.mean(results):.2f} | {np.median(results):.2f} | "
                f"{np.quantile(results, 0.9):.2f} |",
                flush=True,
            )


def log_normal(seed):
    rng = np.random.default_rng([seed, 25])
    mix = rng.normal(size=(3, 8))
    X = np.exp(rng.normal(size=(2_000, 3)) @ mix + 0.3 * rng.normal(size=(2_000, 8)))
    return X, [f"column {j}" for j in range(8)]


def nsl_kdd(seed):
    arrays = data.load("nsl_kdd.npz")
    X = arrays["X_train"][arrays["y_train"] == 0].astype(np.float64)
    return X[np.random.default_rng(seed).permutation(len(X))[:4_000]], arrays["feature_names"]


REASONS = {"log-normal columns": log_normal, "NSL-KDD": nsl_kdd}
CHANGED = 20  # rows for each column


def first_reasons(score, seeds):
    """Print how often the column that was set to its largest value is the first reason."""
    print(f"| data | {score}: alarms | named first | the columns that are named least |")
    print("|---|---|---|---|")
    for name, make in REASONS.items():
        alarmed, right, by_column = [], [], {}
        for seed in seeds:
            X, names = make(seed)
            learned, fresh = X[: len(X) // 2], X[len(X) // 2 :]
            version = train(None, learned.astype(np.float32), Config(score=score, seed=seed))
            rng, most = np.random.default_rng(seed), learned.max(axis=0)
            for j in np.flatnonzero(most > learned.min(axis=0)).tolist():
                rows = fresh[rng.permutation(len(fresh))]
                rows = rows[rows[:, j] < most[j]][:CHANGED].astype(np.float32)
                rows[:, j] = most[j]
                alarms = version.is_anomaly(rows)
                alarmed.append(alarms.mean())
                if alarms.any():
                    named_first = [
                        reasons[0].feature == str(j) for reasons in version.explain(rows[alarms], 1)
                    ]
                    right += named_first
                    by_column.setdefault(names[j], []).extend(named_first)
        least = sorted(
            (float(np.mean(named_first)), name) for name, named_first in by_column.items()
        )[:5]
        listed = ", ".join(f"{name} {100 * share:.0f} %" for share, name in least)
        shares = f"{100 * np.mean(alarmed):.0f} % | {100 * np.mean(right):.1f} %"
        print(f"| {name} | {shares} | {listed} |", flush=True)


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="words of case names")
    parser.add_argument("--score", default=Config().score)
    parser.add_argument("--tails", action="store_true", help="rates of 1e-4 instead of the cases")
    parser.add_argument("--reasons", action="store_true", help="first reasons instead of the cases")
    args = parser.parse_args()
    if args.tails:
        tails()
        return
    if args.reasons:
        first_reasons(args.score, args.seeds)
        return
    print(
        f"| data | {args.score}: AUROC | found | held | 5-NN: AUROC | found | PCA: AUROC | found |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, make in CASES.items():
        if not any(word in name for word in args.cases):
            continue
        rows, reasons = [], []
        for seed in args.seeds:
            case = make(seed)
            ours, reasons_given = figures_of_this_project(case, Config(score=args.score, seed=seed))
            near, pca = figures_of_simple_detectors(case)
            rows.append([*ours, *near[:2], *pca[:2]])
            reasons += reasons_given
        means = np.mean(rows, axis=0)
        cells = [f"{x:.3f}" if i in AUROCS else f"{100 * x:.1f} %" for i, x in enumerate(means)]
        print(f"| {' | '.join([name, *cells])} |", flush=True)
        for reason in sorted(set(reasons)):
            print(f"    rejected: {reason}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
