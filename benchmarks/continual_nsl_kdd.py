"""Learn pyCLAD's five NSL-KDD concepts one after another, by every strategy.

Each concept has 600 normal vectors to learn from and 800 to be judged on, half of them anomalous;
R[i, j] is the AUROC on concept j's own anomalies after learning concept i.

    ANAMNESIS_DATA=data python benchmarks/continual_nsl_kdd.py --output benchmarks/results/nsl.json
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import data
from benchmarks.continual import KeepsData, Ours, as_json, lifetime, measure, summary
from benchmarks.continual_mnist import ARMS, KEEPING, TARGET
from benchmarks.report import arguments, report
from models import Config


def concepts():
    """Return what is learned, a list of (600, 41), and what is judged, (normals, anomalies)."""
    arrays = data.load("pyclad_nsl_kdd_r.npz")
    tasks, judged = [], []
    for i in range(len(arrays["names"])):
        rows = slice(*arrays["train_offsets"][i : i + 2])
        tasks.append(arrays["X_train"][rows].astype(np.float32))
        rows = slice(*arrays["test_offsets"][i : i + 2])
        X, y = arrays["X_test"][rows].astype(np.float32), arrays["y_test"][rows]
        judged.append((X[y == 0], X[y == 1]))
    return tasks, judged


def job(arm, seed):
    """Live one life."""
    if arm in KEEPING:
        learner = KeepsData(*KEEPING[arm], seed)
    else:
        learner = Ours(Config(threshold={"fpr": TARGET}, seed=seed, **ARMS[arm]))
    return lifetime(learner, *concepts())


def main():
    names = [*ARMS, *KEEPING]
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=names, default=names)
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    args = parser.parse_args()
    lives = measure(job, args.arms, args.seeds, args.workers)
    lines = [summary(lives, arm) for arm in args.arms]
    report("continual_nsl_kdd", lines, args.output, lives=as_json(lives))


if __name__ == "__main__":
    main()
