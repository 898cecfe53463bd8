"""How long a detector remembers a regime that never returns, over a hundred experiences.

The data are MNIST's digits, pooled to 7x7. Seed s begins with digit s + 1. The other digits of 1 to
9 follow in random order, in experiences of equal size; 0 is the anomaly. After every experience the
first digit's test images are ranked against those of 0 (AUROC), and the false alarms on them are
counted at 1 % asked. The first digit has left the band if, in the mean of five successive
experiences, its AUROC is more than 0.05 below that after the first one, or its held rate is above
3 %.

    ANAMNESIS_DATA=data python -m benchmarks.memory --output benchmarks/results/memory.json
"""

import os
import time
from dataclasses import replace
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from matplotlib.figure import Figure

from benchmarks import data
from benchmarks.learners import TARGET, Ours
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, runs_of_arm, with_keys
from benchmarks.runs import arguments as run_arguments
from models import Config, Model
from models.parts.statistics import auroc

EXPERIENCES = 100
ROWS = 50  # of a reservoir
SUCCESSIVE = 5
LOWER, HIGHEST = 0.05, 0.03  # the band: AUROC lost, held rate
WEIGHTS = {
    "proportional": "proportional",
    "equal": "equal",
    "w_new 0.2": {"w_prev": 0.8, "w_new": 0.2},
    "w_new 0.8": {"w_prev": 0.2, "w_new": 0.8},
    "half-life 10": {"half_life": 10},
    "auto": "auto",
}
PICTURES = Model(likelihood="bernoulli")  # 49 pixels are too few for `auto` to know pictures
STORE = f" + {ROWS} rows"
STORES = {
    "": {"strategy": "replay", "model": PICTURES},
    STORE: {"strategy": "replay+reservoir", "model": replace(PICTURES, exemplars=ROWS)},
}
ARMS = {
    f"{weights}{store}": {"weights": WEIGHTS[weights], **STORES[store]}
    for store in STORES
    for weights in WEIGHTS
} | {"finetune": {"strategy": "finetune", "model": PICTURES}}


def pooled_images(X):
    """Return images (n, 784) as means of 4x4 pixels, (n, 49)."""
    return X.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)


def job(images, arm, seed):
    """Learn all experiences; return a list for each measure, an entry for each experience."""
    X_train, y_train, X_test, y_test = data.mnist()
    X_train, X_test = pooled_images(X_train), pooled_images(X_test)
    first = seed % 9 + 1
    rng = np.random.default_rng(seed)
    others = [digit for digit in range(1, 10) if digit != first]
    order = [first, *rng.choice(others, EXPERIENCES - 1)]
    model = Ours(Config(threshold={"fpr": TARGET}, seed=seed, **({"score": "elbo"} | ARMS[arm])))
    measures = {name: [] for name in ("auroc", "held", "others auroc", "others held", "seconds")}
    for i, digit in enumerate(order):
        rows = rng.choice(np.flatnonzero(y_train == digit), images, replace=False)
        started = time.perf_counter()
        model.learn(X_train[rows])
        measures["seconds"].append(time.perf_counter() - started)
        zeros, threshold = model.score(X_test[y_test == 0]), model.version.threshold
        seen = np.isin(y_test, order[1 : i + 1])
        for name, rows in (("", y_test == first), ("others ", seen)):
            if rows.any():
                scores = model.score(X_test[rows])
                measures[f"{name}auroc"].append(auroc(scores, zeros))
                measures[f"{name}held"].append(float(np.mean(scores >= threshold)))
    return measures


def departure_after(values, outside):
    """Return after how many experiences the mean of five successive values is `outside`, or None.

    >>> departure_after([1, 1, 1, 1, 1, 0, 0, 0], lambda mean: mean < 0.5)
    8
    >>> departure_after([1, 1, 1, 1, 1, 0, 0, 0], lambda mean: mean < 0.3)
    """
    means = np.convolve(values, np.ones(SUCCESSIVE) / SUCCESSIVE, "valid")
    departures = np.flatnonzero(outside(means))
    return int(departures[0]) + SUCCESSIVE if len(departures) else None


def line(arm, runs):
    """Return one line of the table: an arm over its seeds."""
    aurocs = [departure_after(run["auroc"], lambda mean, run=run: mean < run["auroc"][0] - LOWER)
              for run in runs]  # fmt: skip
    helds = [departure_after(run["held"], lambda mean: mean > HIGHEST) for run in runs]
    return {
        "arm": arm,
        "seeds": len(runs),
        "AUROC left after": ", ".join(str(n or "never") for n in aurocs),
        "held rate left after": ", ".join(str(n or "never") for n in helds),
        "first: AUROC at 1": spread(run["auroc"][0] for run in runs),
        "at 100": spread(run["auroc"][-1] for run in runs),
        "held %, last 5": spread((100 * np.mean(run["held"][-5:]) for run in runs), 2),
        "others: AUROC": spread(run["others auroc"][-1] for run in runs),
        "held %": spread((100 * np.mean(run["others held"][-5:]) for run in runs), 2),
        "s an update": spread((np.mean(run["seconds"]) for run in runs), 1),
    }


def picture(results, arms, path):
    """Draw the first digit's AUROC and held rate over the experiences, mean over seeds."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    colours = [*WEIGHTS, "finetune"]
    for axes, key, factor in zip(figure.subplots(1, 2), ("auroc", "held"), (1, 100), strict=True):
        for arm in arms:
            curves = [run[key] for run in runs_of_arm(results, arm)]
            if curves:
                # Arms with the same weights have the same colour; a reservoir is dashed.
                axes.plot(range(1, EXPERIENCES + 1), factor * np.mean(curves, axis=0), linewidth=1,
                          color=f"C{colours.index(arm.removesuffix(STORE))}", label=arm,
                          linestyle="--" if STORE in arm else "-")  # fmt: skip
        axes.set(xlabel="experiences")
        axes.grid(linewidth=0.3)
    left_axes, right_axes = figure.axes
    left_axes.set(title="AUROC of 0 against the first digit, which never returns")
    right_axes.set(title="Held % of the first digit (asked rate and band dashed)")
    right_axes.set_yscale("symlog", linthresh=2)
    for rate in (TARGET, HIGHEST):
        right_axes.axhline(100 * rate, color="black", linewidth=0.8, linestyle="--")
    left_axes.legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--images", type=int, default=2_500, help="images an experience (2500)")
    args = parser.parse_args()
    keys = [(arm, seed) for seed in range(args.seeds) for arm in args.arms]
    kept = Runs.of(args, images=args.images)
    results = kept.run(
        partial(job, args.images), keys,
        lambda run: f"AUROC {run['auroc'][-1]:.3f}, held {100 * run['held'][-1]:.1f} %",
    )  # fmt: skip
    present = [arm for arm in args.arms if runs_of_arm(results, arm)]
    lines = [line(arm, runs_of_arm(results, arm)) for arm in present]
    figures = with_keys(("arm", "seed"), results)
    report("memory", lines, args.output, lives=figures, images=args.images)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")
        picture(results, present, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
