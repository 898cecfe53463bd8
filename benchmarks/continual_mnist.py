"""Learn nine MNIST digits one after another, by every strategy and by what the literature does.

The protocol of Wiewel & Yang (ICASSP 2019): digit 0 is the anomaly, digits 1 to 9 arrive one at
a time; after task i the test images of 0 are ranked against those of 1 to i (AUROC).

    ANAMNESIS_DATA=data python benchmarks/continual_mnist.py --output benchmarks/results/mnist.json
"""

import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import data
from benchmarks.continual import KeepsData, Ours, as_json, label_axes, lifetime, measure, summary
from benchmarks.report import arguments, report
from models import Config, Model, Replay

TARGET = 0.01
ARMS = {
    "replay": {},
    "replay, prior + sample": {"replay": Replay(latents="prior", decode="sample")},
    "replay, prior + mean": {
        "replay": Replay(latents="prior", decode="mean"),
        "weights": "equal",
        "score": "reconstruction",
    },
    "distillation": {"strategy": "distillation"},
    "replay_alignment": {"strategy": "replay_alignment"},
    "ewc": {"strategy": "ewc"},
    "lwf": {"strategy": "lwf"},
    "reservoir": {"strategy": "reservoir"},
    "herding": {"strategy": "reservoir", "model": Model(choice="herding")},
    "icarl": {"strategy": "icarl"},
    "distillation + reservoir": {"strategy": "distillation+reservoir"},
    "replay, stable": {"model": Model(regime="stable")},
    "fixed": {"strategy": "fixed"},
    "window": {"strategy": "window"},
    "finetune": {"strategy": "finetune"},
    "joint": {"strategy": "joint"},
}
KEEPING = {
    "5-NN joint": ("5-NN", True),
    "5-NN naive": ("5-NN", False),
    "forest joint": ("forest", True),
    "forest naive": ("forest", False),
}


def job(images, arm, seed):
    """Live one life: the first `images` training images of a seeded shuffle, the official test."""
    X_train, y_train, X_test, y_test = data.mnist()
    order = np.random.default_rng(seed).permutation(len(X_train))[:images]
    X_train, y_train = X_train[order], y_train[order]
    if arm in KEEPING:
        learner = KeepsData(*KEEPING[arm], seed)
    else:
        learner = Ours(Config(threshold={"fpr": TARGET}, seed=seed, **ARMS[arm]))
    zeros = X_test[y_test == 0]
    tasks = [X_train[y_train == digit] for digit in range(1, 10)]
    return lifetime(learner, tasks, [(X_test[y_test == digit], zeros) for digit in range(1, 10)])


def picture(lives, arms, path):
    """Draw AUROC over the tasks, and every digit's final false-alarm rate, for every arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    tasks = range(1, 10)
    for arm in arms:
        own = [life for (name, _), life in lives.items() if name == arm]
        curves = np.array([[row["auroc"] for row in rows] for rows, _ in own])
        (line,) = left.plot(tasks, curves.mean(axis=0), marker="o", markersize=3, label=arm)
        left.fill_between(tasks, curves.min(axis=0), curves.max(axis=0), alpha=0.12)
        if own[0][0][-1]["pooled"] is not None:
            rates = 100 * np.mean([rows[-1]["alarms"] for rows, _ in own], axis=0)
            right.plot(tasks, rates, marker="o", markersize=3, color=line.get_color(), label=arm)
    label_axes(left, right, tasks, TARGET)
    left.legend(loc="lower left", fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    names = [*ARMS, *KEEPING]
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=names, default=names)
    parser.add_argument("--images", type=int, default=10_000, help="training images (10000)")
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    args = parser.parse_args()
    lives = measure(partial(job, args.images), args.arms, args.seeds, args.workers)
    lines = [summary(lives, arm) for arm in args.arms]
    report("continual_mnist", lines, args.output, images=args.images, lives=as_json(lives))
    if args.output:
        picture(lives, args.arms, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
