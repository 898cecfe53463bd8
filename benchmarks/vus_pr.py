"""VUS-PR of the servers of SMD and of the water pump of SKAB: detectors with and without context.

VUS-PR (Paparrizos et al., VLDB 2022) is the area under the curve of precision and recall, averaged
over buffers of 0 to `--window` rows around each labelled window. Rows of the buffer count less with
their distance from the window. The code gives the figures of the package `vus` 0.0.6, which is no
dependency because it needs TensorFlow.

Each server, and each run of the pump, is a series of its own. One detector learns the training part
of a server, or the first 400 seconds of all runs, and nothing later. `+10` adds each value's
deviation from its mean over the previous 10 rows.

    ANAMNESIS_DATA=data python -m benchmarks.vus_pr --seeds 1
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded

import numpy as np

from benchmarks import data
from benchmarks.arms import learner
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from benchmarks.telemetry import with_deviation

ARMS = ("replay, auto", "replay", "mahalanobis", "5-NN joint", "forest joint", "PCA joint")
SETS = {"SMD": 0, "SMD +10": 10, "SKAB": 0, "SKAB +10": 10}
THRESHOLDS = 250


def vus_pr(scores, labels, window, thresholds=THRESHOLDS):
    """Return VUS-PR of scores (n,) for labels (n,) of 0 and 1, with buffers of up to `window` rows.

    >>> labels = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    >>> vus_pr(labels + np.linspace(0, 0.1, 8), labels, window=0)
    1.0
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    levels = falling[np.linspace(0, len(scores) - 1, thresholds).astype(int)]
    counts = np.searchsorted(-falling, -levels, side="right")  # rows at or above each level
    edges = np.diff(labels.astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    areas = []
    for width in range(window + 1):
        half = width // 2
        weights = labels.astype(float)
        for start, end in zip(starts, ends, strict=True):
            after = np.arange(end, min(end + half, len(labels)))
            weights[after] += np.sqrt(1 - (after - end + 1) / max(width, 1))
            before = np.arange(max(start - half, 0), start)
            weights[before] += np.sqrt(1 - (start - before) / max(width, 1))
        weights = np.where(labels == 1, 1.0, np.minimum(weights, 1.0))
        hits = np.cumsum(weights[order])[counts - 1]
        buffered = np.cumsum((weights * (labels == 0))[order])[counts - 1]
        positives = labels.sum() + buffered / 2
        highest = _highest(scores, starts - half, ends + half)
        found = (highest[:, None] >= levels).mean(axis=0)
        recall = np.minimum(hits / positives, 1.0) * found
        areas.append(np.dot(np.diff(recall, prepend=0.0), hits / counts))
    return float(np.mean(areas))


def _highest(scores, starts, ends):
    """Return the highest score of each buffered window; windows that touch are one."""
    starts, ends = np.maximum(starts, 0), np.minimum(ends, len(scores))
    first = np.concatenate([[True], starts[1:] >= ends[:-1]])
    lasts = np.concatenate([np.flatnonzero(first)[1:] - 1, [len(starts) - 1]])
    return np.array([scores[a:b].max() for a, b in zip(starts[first], ends[lasts], strict=True)])


def series(name):
    """Yield the rows to learn, and then pairs of rows to judge and their labels, for each model."""
    over = SETS[name]
    if name.startswith("SMD"):
        arrays = data.load("smd_a.npz")
        for i in range(len(arrays["names"])):
            train = slice(*arrays["train_offsets"][i : i + 2])
            test = slice(*arrays["test_offsets"][i : i + 2])
            X = with_deviation(arrays["X_test"][test], over)
            yield with_deviation(arrays["X_train"][train], over), [(X, arrays["y_test"][test])]
        return
    arrays = data.load("skab.npz")
    learned, judged = [], []
    for i in range(len(arrays["names"])):
        run = slice(*arrays["offsets"][i : i + 2])
        X, y = with_deviation(arrays["X"][run], over), arrays["y"][run]
        first = min(400, *np.flatnonzero(y)[:1])
        learned.append(X[:first])
        judged.append((X[first:], y[first:]))
    yield np.concatenate(learned), judged


def job(name, arm, seed, window):
    """Return the VUS-PR of each series of a set."""
    found = []
    for learned, judged in series(name):
        model = learner(arm, seed)
        model.learn(learned)
        found += [vus_pr(model.score(X), y, window) for X, y in judged if y.any()]
    return found


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--window", type=int, default=100, help="rows of the widest buffer")
    args = parser.parse_args()
    keys = [
        (name, arm, seed, args.window)
        for seed in range(args.seeds) for name in args.sets for arm in args.arms
    ]  # fmt: skip
    results = Runs.of(args).run(job, keys, lambda found: f"VUS-PR {np.mean(found):.3f}")
    rows = []
    for name in args.sets:
        for arm in args.arms:
            runs = [found for key, found in results.items() if key[:2] == (name, arm)]
            values = spread(map(np.mean, runs))
            row = {"set": name, "arm": arm, "seeds": len(runs), "series": len(runs[0])}
            rows.append(row | {"VUS-PR": values})
    by_key = {key: {"VUS-PR": found} for key, found in results.items()}
    figures = with_keys(("set", "arm", "seed", "window"), by_key)
    report("vus_pr", rows, args.output, figures=figures)


if __name__ == "__main__":
    main()
