"""Learn pyCLAD's five NSL-KDD concepts in turn, by this project's strategies and pyCLAD's.

Each concept has 600 normal vectors to learn from and 800 to be judged on, half of them anomalous;
R[i, j] is the AUROC on concept j's own anomalies after learning concept i. Where pyCLAD is
installed (the extra `peers`), its strategies with its models are arms too, and `replay` is run once
more by pyCLAD's own scenario and metrics.

    ANAMNESIS_DATA=data python -m benchmarks.continual_nsl_kdd --output benchmarks/results/nsl.json
"""

import importlib.util
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.arms import ARMS, learner
from benchmarks.continual import bench, run_as_json, run_tasks
from benchmarks.runs import few_threads

if importlib.util.find_spec("pyclad"):
    from benchmarks.pyclad_adapter import STRATEGIES, Anamnesis, PycladStrategy, run
else:
    STRATEGIES = {}


def concepts():
    """Return the vectors to learn, a list of (600, 41), and to judge, (normals, anomalies)."""
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
    """Learn all concepts with one arm and one seed; return the measurements."""
    theirs = STRATEGIES.get(arm)
    model = PycladStrategy(*theirs, seed) if theirs else learner(arm, seed)
    return run_as_json(*run_tasks(model, *concepts()))


def main():
    args, _, _ = bench(
        "continual_nsl_kdd",
        __doc__,
        lambda _: job,
        names=data.load("pyclad_nsl_kdd_r.npz")["names"],
        arms=(*ARMS, *STRATEGIES),
    )
    if STRATEGIES and not args.done:
        few_threads(1)
        measures = run(Anamnesis(), *concepts())
        values = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
        print(f"\nreplay, seed 0, by pyCLAD's own scenario and metrics: {values}")


if __name__ == "__main__":
    main()
