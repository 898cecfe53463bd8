"""Follow telemetry in time order: servers, a water pump, and series as windows, regime by regime.

A stage has normals to learn and then vectors to judge. The judged vectors are labelled, and nothing
is tuned on them. False alarms are counted at two asked rates: on every stage when it is new, and
again after the last stage, when the others are old regimes. A labelled window counts as found if
one vector in it alarms.

- SMD: two servers, one detector. The training part of a server is learned. Its test part (one
  vector a minute) is judged in four quarters, and each quarter is learned after it is judged.
- SKAB: a water pump in three series of runs, one detector. Of each series the first 400 seconds of
  the runs are learned (with the first series also the anomaly-free recording), and the rest is
  judged (one vector a second).
- NAB: 35 series, a detector for each. A vector is 16 successive values. NAB's probation of 15 % is
  learned first; the rest is judged in four quarters, as with SMD.

`SMD +10` and `SKAB +10` are the same rows with more features: each value's deviation from its mean
over the previous 10 rows, as `context` derives it. Every arm gets the same features. The delay is
the median number of rows from the start of a found window to its first alarm.

For detectors that promise no rate, a fifth of the learned rows is held out; the threshold is a
quantile of its scores.

    ANAMNESIS_DATA=data python -m benchmarks.telemetry --output benchmarks/results/telemetry.json
"""

import os
from functools import partial
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from matplotlib.figure import Figure

from benchmarks import data
from benchmarks.arms import KEEPING, learner
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from models.context import Context, derive
from models.parts.statistics import auroc

RATES = (0.01, 0.001)
ARMS = ("replay", "replay, auto", "distillation + reservoir", "finetune", "joint", *KEEPING)
DAY = 86_400.0
WIDTH = 16  # values in a window of a series
LEAST = 32  # normals a stage must bring


class Stage(NamedTuple):
    """Vectors to learn (n, d), vectors to judge (m, d), and the labelled window of each judged one.

    `windows` (m,): 0 for a normal, k for a row of the stream's k-th labelled window. `step`:
    seconds between two rows.
    """

    learned: np.ndarray
    judged: np.ndarray
    windows: np.ndarray
    step: float


def windows(labels):
    """Return labels (n,) with the runs of ones numbered from 1; zeros stay zeros.

    >>> windows(np.array([0, 1, 1, 0, 1]))
    array([0, 1, 1, 0, 2])
    """
    starts = np.diff(labels.astype(int), prepend=0) == 1
    return np.where(labels == 1, np.cumsum(starts), 0)


def with_deviation(X, over):
    """Return the features of rows X (n, d) of one source, with the deviation from `over` rows.

    The first `over` rows have no deviation: they get the features of the first row that has one.
    """
    if not over:
        return X
    features = derive(Context(over=over), X).features
    features[:over] = features[over : over + 1]
    return features


def smd(over=0):
    """Return one stream: the two servers, one after another."""
    arrays = data.load("smd_a.npz")
    numbered, stages = windows(arrays["y_test"]), []
    for i in range(len(arrays["names"])):
        train = slice(*arrays["train_offsets"][i : i + 2])
        test = slice(*arrays["test_offsets"][i : i + 2])
        learned, judged = (with_deviation(arrays[part][rows], over)
                           for part, rows in (("X_train", train), ("X_test", test)))  # fmt: skip
        stages += quarters(learned, judged, numbered[test], 60.0)
    return [stages]


def quarters(learned, X, numbered, step):
    """Return a stage for each quarter of X (n, d); its normals are learned in the next stage."""
    stages = []
    for rows in np.array_split(np.arange(len(X)), 4):
        stages.append(Stage(learned, X[rows], numbered[rows], step))
        learned = X[rows][numbered[rows] == 0]
    return stages


def skab(over=0):
    """Return one stream: the runs by series, in time order."""
    arrays = data.load("skab.npz")
    offsets, numbered = arrays["offsets"], windows(arrays["y"])
    runs: dict[str, list[slice]] = {}
    for i in np.argsort(arrays["timestamp"][offsets[:-1]]):
        runs.setdefault(str(arrays["names"][i]).split("/")[0], []).append(
            slice(*offsets[i : i + 2])
        )
    stages = []
    for series in runs.values():
        learned, judged, numbers = [], [], []
        if not stages:
            learned.append(with_deviation(arrays["X_normal"], over))
        for run in series:
            anomalous = np.flatnonzero(arrays["y"][run])
            first = min(400, *anomalous[:1])
            X = with_deviation(arrays["X"][run], over)
            learned.append(X[:first])
            judged.append(X[first:])
            numbers.append(numbered[run][first:])
        stages.append(Stage(*map(np.concatenate, (learned, judged, numbers)), 1.0))
    return [stages]


def nab():
    """Return a stream for each series."""
    arrays = data.load("nab_a.npz")
    return [_series(arrays, slice(*arrays["offsets"][i : i + 2])) for i in range(35)]


def _series(arrays, rows):
    values, labels = arrays["X"][rows, 0].astype(np.float32), arrays["y"][rows]
    step = float(np.median(np.diff(arrays["timestamp"][rows])))
    X = np.lib.stride_tricks.sliding_window_view(values, WIDTH)
    numbered = windows(labels)[WIDTH - 1 :]
    # A vector with values of an earlier labelled window is neither a normal nor an anomaly.
    reaches = np.lib.stride_tricks.sliding_window_view(labels, WIDTH).any(axis=1)
    usable = ~reaches | (numbered > 0)
    X, numbered = X[usable], numbered[usable]
    first = int(0.15 * len(X))
    return quarters(X[:first][numbered[:first] == 0], X[first:], numbered[first:], step)


STREAMS = {
    "SMD": smd,
    "SMD +10": partial(smd, 10),
    "SKAB": skab,
    "SKAB +10": partial(skab, 10),
    "NAB": nab,
}


class LearnerWithQuantile:
    """A learner that promises no rate: a quantile of a held-out fifth is its threshold."""

    def __init__(self, peer, seed):
        self.peer, self.rng, self.held = peer, np.random.default_rng(seed), []

    def learn(self, X):
        """Learn four fifths of X (n, d); keep the rest for the threshold."""
        left_out = self.rng.permutation(len(X)) < len(X) // 5
        self.peer.learn(X[~left_out])
        self.held = [*self.held, X[left_out]] if self.peer.joint else [X[left_out]]
        self.scores = self.peer.score(np.concatenate(self.held))

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.peer.score(X)

    def threshold(self, rate):
        """Return the score that a share `rate` of the held-out normals reaches."""
        return float(np.quantile(self.scores, 1 - rate, method="higher"))


class LearnerWithCalibration:
    """A detector of this project: its own calibration gives the threshold."""

    def __init__(self, ours):
        self.learn, self.score, self.ours = ours.learn, ours.score, ours

    def threshold(self, rate):
        """Return the threshold for a rate of false alarms."""
        return self.ours.version.threshold_for({"fpr": rate}).value


def follow(model, stages):
    """Return the results of one stream: counts that can be summed over streams, and AUROCs."""
    aurocs, days, normals = [], 0.0, 0
    false, old = dict.fromkeys(RATES, 0), dict.fromkeys(RATES, 0)
    delays: dict[float, dict] = {rate: {} for rate in RATES}  # by window: rows until an alarm
    rows_found, anomalous, begins = dict.fromkeys(RATES, 0), 0, {}
    place = 0
    for stage in stages:
        if len(stage.learned) >= LEAST:
            model.learn(stage.learned)
        scores, normal = model.score(stage.judged), stage.windows == 0
        for row in np.flatnonzero(~normal).tolist():
            begins.setdefault(int(stage.windows[row]), place + row)
        days += normal.sum() * stage.step / DAY
        normals += int(normal.sum())
        if 0 < normal.sum() < len(normal):
            aurocs.append(auroc(scores[normal], scores[~normal]))
        for rate in RATES:
            alarmed = scores >= model.threshold(rate)
            false[rate] += int(alarmed[normal].sum())
            rows_found[rate] += int(alarmed[~normal].sum())
            for row in np.flatnonzero(alarmed & ~normal).tolist():
                window = int(stage.windows[row])
                delays[rate].setdefault(window, place + row - begins[window])
        anomalous += int((~normal).sum())
        place += len(scores)
    past = np.concatenate([stage.judged[stage.windows == 0] for stage in stages[:-1]])
    for rate in RATES:
        old[rate] = int((model.score(past) >= model.threshold(rate)).sum())
    return {
        "aurocs": aurocs,
        "days": days,
        "normals": normals,
        "anomalous": anomalous,
        "windows": len({int(k) for stage in stages for k in stage.windows if k}),
        "at": {
            str(rate): {
                "false": false[rate],
                "old false": old[rate],
                "old normals": len(past),
                "found": len(delays[rate]),
                "rows found": rows_found[rate],
                "delays": sorted(delays[rate].values()),
            }
            for rate in RATES
        },
    }


def job(name, arm, seed):
    """Follow all streams of a set, each with a detector of its own."""
    results = []
    for stages in STREAMS[name]():
        model = learner(arm, seed)
        model = (
            LearnerWithQuantile(model, seed) if arm in KEEPING else LearnerWithCalibration(model)
        )
        results.append(follow(model, stages))
    return results


def description(results):
    first = results[0]["at"][str(RATES[0])]
    return f"AUROC {mean_auroc(results):.3f}, false alarms {first['false']:.0f}"


def mean_auroc(results):
    return float(np.mean([value for result in results for value in result["aurocs"]]))


def total(results, rate, key):
    return sum(result["at"][str(rate)][key] for result in results)


def delays(runs, rate):
    """Return the number of rows until the first alarm in each found window, of all runs."""
    return [
        rows for results in runs for result in results for rows in result["at"][str(rate)]["delays"]
    ]


def lines(name, arm, runs):
    """Return a line of the table for each asked rate: an arm on a set over its seeds."""
    days, normals, n = (sum(run[key] for run in runs[0]) for key in ("days", "normals", "windows"))
    for rate in RATES:
        false, old, old_normals, found = (
            np.array([total(results, rate, key) for results in runs], float)
            for key in ("false", "old false", "old normals", "found")
        )
        yield {
            "set": name,
            "arm": arm,
            "seeds": len(runs),
            "AUROC": spread(map(mean_auroc, runs)),
            "asked %": f"{100 * rate:g}",
            "held %": spread(100 * false / normals, 2),
            "old stages %": spread(100 * old / old_normals, 2),
            "asked a day": f"{rate * normals / days:.4g}",
            "false alarms a day": spread(false / days, 1),
            "windows found": f"{found.mean():.1f} of {n}",
            "rows found %": spread(
                100 * total(run, rate, "rows found") / sum(s["anomalous"] for s in run)
                for run in runs
            ),
            "delay": f"{np.median(delays(runs, rate)):.0f}" if delays(runs, rate) else "-",
        }


def picture(results_of, arms, path):
    """Draw, for each set, alarms a day on old and new normals against windows found."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    names = list(dict.fromkeys(name for name, *_ in results_of))
    drawn = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(drawn, names, strict=True):
        for i, arm in enumerate(arms):
            runs = [results for key, results in results_of.items() if key[:2] == (name, arm)]
            if not runs:
                continue
            days, n = (sum(run[key] for run in runs[0]) for key in ("days", "windows"))
            x = [np.mean([total(r, rate, "false") for r in runs]) / days for rate in RATES]
            y = [np.mean([total(r, rate, "found") for r in runs]) / n for rate in RATES]
            axes.plot(x, y, marker="o", color=f"C{i}", label=arm)
        axes.set(xscale="log", xlabel="false alarms a day", ylabel="labelled windows found",
                 title=f"{name}, asked {' and '.join(f'{r:.1%}' for r in RATES)}")  # fmt: skip
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--sets", nargs="+", choices=STREAMS, default=list(STREAMS))
    args = parser.parse_args()
    keys = [(name, arm, seed) for seed in range(args.seeds) for name in args.sets
            for arm in args.arms]  # fmt: skip
    kept = Runs.of(args)
    results_of = kept.run(job, keys, description)
    rows = []
    for name in args.sets:
        for arm in args.arms:
            runs = [results for key, results in results_of.items() if key[:2] == (name, arm)]
            rows += lines(name, arm, runs) if runs else []
    streams_by_key = {key: {"streams": streams} for key, streams in results_of.items()}
    figures = with_keys(("set", "arm", "seed"), streams_by_key)
    report("telemetry", rows, args.output, figures=figures)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")
        picture(results_of, args.arms, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
