"""Learn MNIST several times with some pixels permuted, differently for each task.

EWC was evaluated on such tasks (Kirkpatrick et al., 2017): they are equally hard and differ only in
a square in the middle. The normals are the digits 1 to 9 and the anomaly is 0, both with the task's
permutation of the middle pixels. The first task has no permutation.

    ANAMNESIS_DATA=data python -m benchmarks.continual_permuted --output benchmarks/results/permuted.json
"""  # noqa: E501

import os
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.arms import learner
from benchmarks.continual import bench, run_as_json, run_tasks

TASKS = 5
SIDE = 28


def permutation(task, square):
    """Return where each of the 784 pixels comes from: those of the middle square are shuffled."""
    places = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    if task:
        edge = (SIDE - square) // 2
        middle = (slice(edge, edge + square),) * 2
        shuffled = np.random.default_rng(task).permutation(places[middle].ravel())
        places[middle] = shuffled.reshape(square, square)
    return places.ravel()


def job(images, square, arm, seed):
    """Learn all tasks: `images` training images a task, none of them in two tasks."""
    X_train, y_train, X_test, y_test = data.mnist()
    rng = np.random.default_rng(seed)
    normals = rng.permutation(np.flatnonzero(y_train != 0))
    tasks, judged = [], []
    for task in range(TASKS):
        order = permutation(task, square)
        pictures = normals[task * images : (task + 1) * images]
        tasks.append(X_train[pictures][:, order])
        judged.append((X_test[y_test != 0][:, order], X_test[y_test == 0][:, order]))
    return run_as_json(*run_tasks(learner(arm, seed), tasks, judged))


def options(parser):
    """Add how much is learned and how much is permuted."""
    parser.add_argument("--images", type=int, default=2_000, help="training images a task (2000)")
    parser.add_argument("--square", type=int, default=14, help="side of the permuted square (14)")


def main():
    bench(
        "continual_permuted",
        __doc__,
        lambda args: partial(job, args.images, args.square),
        names=range(1, TASKS + 1),
        more=options,
    )


if __name__ == "__main__":
    main()
