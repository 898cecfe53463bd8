"""Detect anomalies on ADBench's sets, by this project's scores and by other libraries.

The protocol is ADBench's for semi-supervised detection: half of the normals are learned; the other
half and all anomalies are ranked (AUROC). No hyperparameters are tuned. This project and the
isolation forest get the rows as they are, and PyOD's VAE standardises rows itself; the other
detectors of scikit-learn get standardised rows. Sets are capped, with the same rows for every
detector, so that the whole table takes minutes. PyOD's VAE is an arm if it is installed (the extra
`peers`). For the default score two ablations are printed. There is no ablation of replay, because
all rows come at once here. `lowest` is the AUROC of the set where it is lowest. `held` is the share
of the other half that alarms at 1 % asked: the mean over the sets, and the worst.

    ANAMNESIS_DATA=data python -m benchmarks.tabular --output benchmarks/results/tabular.json
"""

import importlib.util
import os
import time
from collections import defaultdict
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from matplotlib.figure import Figure

from benchmarks import data
from benchmarks.ablations import WITHOUT, ablated
from benchmarks.learners import FITS, Ours, Peer
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from models import Config
from models.config import SCORES
from models.parts.statistics import auroc

RAW = ("IForest", "PyOD VAE")  # peers that get the rows as they are
ARMS = (*SCORES, *(name for name in FITS if name != "PyOD VAE" or importlib.util.find_spec("pyod")))


def detector(arm, seed):
    """Return a detector by its arm's name: a peer, or a score of this project."""
    if arm in FITS:
        return Peer(arm, seed, scaled=arm not in RAW)
    return Ours(Config(score=arm, seed=seed))


def split(name, seed, most):
    """Return (train, normals, anomalies): half of the normals each, at most `most` rows each."""
    arrays = data.load(f"adbench/{name}.npz")
    X, y = arrays["X"].astype(np.float32), arrays["y"].ravel()
    rng = np.random.default_rng(seed)
    normal = X[y == 0][rng.permutation(int((y == 0).sum()))]
    anomalous = X[y == 1][rng.permutation(int((y == 1).sum()))]
    half = len(normal) // 2
    return normal[:half][:most], normal[half:][:most], anomalous[:most]


def job(most, name, arm, seed):
    """Return the figures of one detector on one set."""
    train, normals, anomalies = split(name, seed, most)
    model = detector(arm, seed)
    start = time.perf_counter()
    model.learn(train)
    learned = time.perf_counter()
    scores = model.score(normals)
    scored = time.perf_counter()
    without = {}
    if arm in SCORES:
        parts = [ablated(model.version, X) for X in (normals, anomalies)]
        without = {name: auroc(*(part[name] for part in parts)) for name in parts[0]}
    return {
        "auroc": auroc(scores, model.score(anomalies)),
        **without,
        "alarms": {name: float(np.mean(scores >= at)) for name, at in model.thresholds().items()},
        "seconds": learned - start,
        "microseconds a row": 1e6 * (scored - learned) / len(normals),
    }


def tables(results, sets, arms):
    """Return two tables: a line for each set and their mean, and a line for each arm."""
    lines = []
    for name in [*sets, None]:
        line = {"set": name or "mean"}
        for arm in arms:
            aurocs = [run["auroc"] for key, run in results.items() if is_of(key, name, arm)]
            line[arm] = spread([np.mean(aurocs)]) if aurocs else None
        lines.append(line)
    costs = []
    for arm in arms:
        runs = [(key[-1], run) for key, run in results.items() if is_of(key, None, arm)]
        by_seed = defaultdict(list)
        for seed, run in runs:
            by_seed[seed].append(run["auroc"])
        figures = [run for _, run in runs]
        rates = [run["alarms"]["fpr"] for run in figures if run["alarms"]]
        held = f"{100 * np.mean(rates):.2f}, {100 * max(rates):.2f}" if rates else None
        costs.append({
            "arm": arm,
            "mean AUROC": spread(map(np.mean, by_seed.values()), 4),
            "lowest": spread([min(line_values(results, sets, arm))]),
            **{name: _mean(figures, name) for name in WITHOUT},
            "held % (mean, worst)": held,
            "s to learn": _mean(figures, "seconds"),
            "us a row": _mean(figures, "microseconds a row"),
        })  # fmt: skip
    return lines, costs


def _mean(figures, name):
    """Return the mean of a figure, None where there is none."""
    values = [figure[name] for figure in figures if name in figure]
    return float(np.mean(values)) if values else None


def line_values(results, sets, arm):
    """Return an arm's mean AUROC on each set."""
    aurocs = (
        [run["auroc"] for key, run in results.items() if is_of(key, name, arm)] for name in sets
    )
    return [float(np.mean(values)) for values in aurocs if values]


def is_of(key, name, arm):
    """Return whether a key belongs to the arm and to the set, or to any set if `name` is None."""
    return key[1] == arm and name in (key[0], None)


def picture(results, sets, arms, path):
    """Draw each set's AUROC, a marker for each arm."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for i, arm in enumerate(arms):
        values = line_values(results, sets, arm)
        axes.plot(sets[: len(values)], values, "os^vDP*X"[i % 8], color=f"C{i}", label=arm,
                  alpha=0.75)  # fmt: skip
    axes.set(ylabel="AUROC", title="ADBench, trained on half of the normals (mean over seeds)")
    axes.tick_params(axis="x", rotation=60)
    axes.grid(axis="x", linewidth=0.3)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--most", type=int, default=10_000, help="rows of each kind (10000)")
    args = parser.parse_args()
    sets = sorted(path.stem for path in (data.folder() / "adbench").glob("*.npz"))
    if not sets:
        data.load("adbench/annthyroid.npz")
    keys = [(name, arm, seed) for seed in range(args.seeds) for arm in args.arms for name in sets]
    kept = Runs.of(args, most=args.most)
    results = kept.run(
        partial(job, args.most), keys, lambda run: f"{run['auroc']:.3f} ({run['seconds']:.1f} s)"
    )
    arms = [arm for arm in args.arms if any(key[1] == arm for key in results)]
    lines, costs = tables(results, sets, arms)
    figures = with_keys(("set", "arm", "seed"), results)
    report("tabular", costs, args.output, {"AUROC": lines}, figures=figures)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")
        picture(results, sets, arms, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
