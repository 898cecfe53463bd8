"""Classify digits: five are learned first, then five more one by one; each group is measured.

The kind `mahalanobis` classifies by its regimes, a VAE by the solver head on its code, and `icarl`
by the nearest mean of its exemplars. MNIST's digits 0 to 4 are learned in one experience with their
labels, then 5 to 9 one after another. Accuracy is over all classes learned so far, on the official
test images: on all of them, on the first five classes and on those added. Confusions show two
biases: `recency`, the share of older classes' images that are taken for the newest class, and
`first batch`, the share of added classes' images that are taken for one of the first five. `linear
joint`, scikit-learn's linear discriminant on all images, keeps everything.

    ANAMNESIS_DATA=data python -m benchmarks.class_incremental --output benchmarks/results/classes.json
"""  # noqa: E501

import os
import time
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from matplotlib.figure import Figure

from benchmarks import data
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, runs_of_arm, with_keys
from benchmarks.runs import arguments as run_arguments
from models import Config, train

FIRST, ADDED = range(5), range(5, 10)
OURS = {
    "mahalanobis": {"kind": "mahalanobis"},
    **{name: {"strategy": name} for name in ("replay", "distillation", "icarl", "reservoir")},
    **{name: {"strategy": name} for name in ("lwf", "fixed", "finetune", "joint")},
}
ARMS = (*OURS, "linear joint")


class Classifier:
    """A detector of this project that learns labels."""

    def __init__(self, config):
        self.config, self.version = config, None

    def learn(self, X, y):
        """Learn X (n, d) with labels y (n,)."""
        self.version = train(self.version, X, self.config, labels=y)

    def classify(self, X):
        """Return the class of each row, (n,)."""
        return self.version.classify(X)


class Linear:
    """Linear discriminant analysis on every image so far."""

    def __init__(self):
        self.kept = []

    def learn(self, X, y):
        """Fit anew with X (n, d) of classes y (n,)."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        self.kept.append((X, y))
        all_X, all_y = map(np.concatenate, zip(*self.kept, strict=True))
        # Pixels that are always dark have no variance, so the covariance needs shrinkage.
        self.fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(all_X, all_y)

    def classify(self, X):
        """Return the class of each row, (n,)."""
        return self.fitted.predict(X)


def job(images, arm, seed):
    """Learn five classes, then five more; return the confusions (10, 10) after each experience."""
    X, X_test = data.digits(images, seed)
    model = (
        Linear()
        if arm == "linear joint"
        else Classifier(Config(seed=seed, **({"score": "elbo"} | OURS[arm])))
    )
    confusions, seconds = [], []
    for digits in (FIRST, *([digit] for digit in ADDED)):
        labels = np.concatenate([np.full(len(X[digit]), digit) for digit in digits])
        started = time.perf_counter()
        model.learn(np.concatenate([X[digit] for digit in digits]), labels)
        seconds.append(time.perf_counter() - started)
        results = np.zeros((10, 10), int)
        for digit in range(max(digits) + 1):
            results[digit] = np.bincount(model.classify(X_test[digit]), minlength=10)
        confusions.append(results.tolist())
    return {"confusions": confusions, "seconds": seconds}


def accuracy(results, digits=range(10)):
    """Return the share of images of `digits`, rows of `results`, that are classified correctly.

    >>> accuracy(np.array([[3, 1], [2, 2]]), [0])
    0.75
    """
    results = np.asarray(results)[list(digits)]
    return float(
        sum(row[digit] for row, digit in zip(results, digits, strict=True)) / results.sum()
    )


def share_classified_as(results, digits, others):
    """Return the share of images of `digits` that are classified as one of `others`."""
    results = np.asarray(results)[list(digits)]
    return float(results[:, list(others)].sum() / results.sum())


def table_line(arm, runs):
    """Return one line of the table: an arm over its seeds, after the last class."""
    last = [run["confusions"][-1] for run in runs]
    newest = ADDED[-1]
    return {
        "arm": arm,
        "seeds": len(runs),
        "5 classes": spread(accuracy(run["confusions"][0], FIRST) for run in runs),
        "all 10": spread(map(accuracy, last)),
        "first 5": spread(accuracy(results, FIRST) for results in last),
        "added 5": spread(accuracy(results, ADDED) for results in last),
        "newest": spread(accuracy(results, [newest]) for results in last),
        "recency": spread(
            share_classified_as(results, range(newest), [newest]) for results in last
        ),
        "first batch": spread(share_classified_as(results, ADDED, FIRST) for results in last),
        "s to add a class": spread((np.mean(run["seconds"][1:]) for run in runs), 2),
    }


def by_class(results, arms):
    """Return each arm's accuracy over the classes learned, after every class added."""
    rows = []
    for arm in arms:
        confusions = [run["confusions"] for run in runs_of_arm(results, arm)]
        row = {"arm": arm}
        for i, classes in enumerate(range(len(FIRST), 11)):
            accuracies = (accuracy(run[i], range(classes)) for run in confusions)
            row[f"{classes} classes"] = spread(accuracies)
        rows.append(row)
    return rows


def confusion(runs):
    """Return how each class's images are classified, in %, over the seeds."""
    total = np.sum([run["confusions"][-1] for run in runs], axis=0)
    shares = 100 * total / total.sum(axis=1, keepdims=True)
    return [{"digit": d} | {f"as {k}": f"{shares[d, k]:.0f}" for k in range(10)} for d in range(10)]


def picture(results, arms, path):
    """Draw the confusions after the last class, arm by arm."""
    figure = Figure(figsize=(13, 3.1 * -(-len(arms) // 5)), layout="constrained")
    panels = figure.subplots(-(-len(arms) // 5), 5, squeeze=False).ravel()
    for axes, arm in zip(panels, arms, strict=False):
        confusions = [run["confusions"][-1] for run in runs_of_arm(results, arm)]
        total = np.sum(confusions, axis=0)
        axes.imshow(total / total.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"{arm}: {accuracy(total):.3f}", fontsize="small")
        axes.set(xlabel="taken for", ylabel="digit", xticks=range(10), yticks=range(10))
        axes.axhline(len(FIRST) - 0.5, color="black", linewidth=0.5)
        axes.axvline(len(FIRST) - 0.5, color="black", linewidth=0.5)
    for axes in panels[len(arms) :]:
        axes.axis("off")
    figure.savefig(path, dpi=110)


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--images", type=int, default=10_000, help="training images (10000)")
    args = parser.parse_args()
    keys = [(arm, seed) for seed in range(args.seeds) for arm in args.arms]
    kept = Runs.of(args, images=args.images)
    results = kept.run(
        partial(job, args.images), keys, lambda run: f"{accuracy(run['confusions'][-1]):.3f}"
    )
    runs = {arm: runs_of_arm(results, arm) for arm in args.arms}
    arms = [arm for arm in args.arms if runs[arm]]
    further = {"Accuracy over the classes learned": by_class(results, arms)} | {
        f"{arm}: what each digit is taken for, %": confusion(runs[arm]) for arm in arms
    }
    figures = with_keys(("arm", "seed"), results)
    report("class_incremental", [table_line(arm, runs[arm]) for arm in arms], args.output, further,
           lives=figures, images=args.images)  # fmt: skip
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")
        picture(results, arms, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
