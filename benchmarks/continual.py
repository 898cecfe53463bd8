"""One life of one detector: tasks learned one after another, all of them measured after each.

A learner is anything with `learn(X)`, `score(X)`, `alarms(X)` (None where it has no threshold)
and `bytes_kept`; the strategies of this project and the detectors that keep everything alike.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.transfer import all_measures
from models import train


class Ours:
    """A detector of this project, configured."""

    def __init__(self, config):
        self.config, self.version = config, None

    def learn(self, X):
        """Learn the normals X (n, d) of one task."""
        self.version = train(self.version, X, self.config)

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.version.score(X)

    def alarms(self, X):
        """Return the verdict on each row, (n,), or None."""
        return self.version.is_anomaly(X)

    @property
    def bytes_kept(self):
        """Return how many bytes of real vectors are kept."""
        return self.version.lineage["bytes_kept"]


class KeepsData:
    """A detector fitted anew on every vector so far (`joint`), or on the newest task alone."""

    def __init__(self, kind, joint, seed):
        self.kind, self.joint, self.seed, self.kept = kind, joint, seed, []

    def learn(self, X):
        """Learn the normals X (n, d) of one task."""
        self.kept = [*self.kept, X] if self.joint else [X]
        X = np.concatenate(self.kept)
        if self.kind == "5-NN":
            from sklearn.neighbors import NearestNeighbors

            self.model = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(X)
        else:
            from sklearn.ensemble import IsolationForest

            self.model = IsolationForest(random_state=self.seed).fit(X)

    def score(self, X):
        """Return the score of each row, (n,)."""
        if self.kind == "5-NN":
            return self.model.kneighbors(X)[0][:, -1]
        return -self.model.score_samples(X)

    def alarms(self, X):
        """Return the verdict on each row, (n,), or None."""
        del X

    @property
    def bytes_kept(self):
        """Return how many bytes of real vectors are kept."""
        return sum(X.nbytes for X in self.kept)


def lifetime(learner, tasks, score_rows):
    """Return (rows, R): one row for each task learned, and the AUROC of each task after it.

    Parameters
    ----------
    learner
        Learns `tasks`, a list of (n, d) arrays, in order.
    score_rows
        A list of (normals, anomalies), one for each task, to be told apart; anomalies may be one
        array that all tasks share.
    """
    R, rows = np.zeros((len(tasks), len(tasks))), []
    for i, X in enumerate(tasks):
        start = time.perf_counter()
        learner.learn(X)
        seconds = time.perf_counter() - start
        normal = [learner.score(normals) for normals, _ in score_rows]
        cached = {id(a): learner.score(a) for a in {id(a): a for _, a in score_rows}.values()}
        anomalous = [cached[id(a)] for _, a in score_rows]
        R[i] = [auroc(n, a) for n, a in zip(normal, anomalous, strict=True)]
        seen = {id(a): cached[id(a)] for _, a in score_rows[: i + 1]}
        alarms = [learner.alarms(normals) for normals, _ in score_rows[: i + 1]]
        rows.append(
            {
                "task": i + 1,
                "auroc": auroc(np.concatenate(normal[: i + 1]), np.concatenate([*seen.values()])),
                "seconds": seconds,
                "bytes_kept": learner.bytes_kept,
                "alarms": [None if a is None else float(np.mean(a)) for a in alarms],
                "pooled": None if alarms[0] is None else float(np.concatenate(alarms).mean()),
            }
        )
    return rows, R


def auroc(normal, anomalous):
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(truth, np.concatenate([normal, anomalous])))


def one_thread():
    """Keep small networks on one core: two threads wait for each other more than they help."""
    import torch

    torch.set_num_threads(1)


def measure(job, arms, seeds, workers):
    """Return {(arm, seed): job(arm, seed)} of every arm and seed, telling stderr how far it is."""
    jobs = [(arm, seed) for seed in range(seeds) for arm in arms]
    start, lives = time.perf_counter(), {}
    with ProcessPoolExecutor(workers, initializer=one_thread) as pool:
        running = {pool.submit(job, *one): one for one in jobs}
        for i, done in enumerate(as_completed(running), start=1):
            arm, seed = running[done]
            lives[arm, seed] = rows, _ = done.result()
            held = rows[-1]["pooled"]
            print(
                f"[{i}/{len(jobs)}, {time.perf_counter() - start:.0f} s] {arm}, seed {seed}: "
                f"AUROC mean {np.mean([row['auroc'] for row in rows]):.4f}, final "
                f"{rows[-1]['auroc']:.4f}, {sum(row['seconds'] for row in rows):.0f} s"
                + ("" if held is None else f", held {100 * held:.2f} %"),
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return {one: lives[one] for one in sorted(jobs, key=lambda one: (arms.index(one[0]), one[1]))}


def summary(lives, arm):
    """Return one line of the table: an arm over its seeds."""
    own = [life for (name, _), life in lives.items() if name == arm]
    finals = [rows[-1]["auroc"] for rows, _ in own]
    means = [np.mean([row["auroc"] for row in rows]) for rows, _ in own]
    measures = [all_measures(R) for _, R in own]
    last = [rows[-1] for rows, _ in own]
    held = [row["alarms"] for row in last if row["pooled"] is not None]
    return {
        "arm": arm,
        "AUROC mean": float(np.mean(means)),
        "final": float(np.mean(finals)),
        "sd": float(np.std(finals)),
        **{name: float(np.mean([m[name] for m in measures])) for name in measures[0]},
        "held %": 100 * float(np.mean([row["pooled"] for row in last])) if held else None,
        "worst task %": 100 * float(np.mean(held, axis=0).max()) if held else None,
        "s an update": float(np.mean([row["seconds"] for rows, _ in own for row in rows])),
        "bytes kept": int(np.mean([row["bytes_kept"] for row in last])),
    }


def as_json(lives):
    """Return every figure of every life, JSON-able."""
    return [
        {"arm": arm, "seed": seed, "tasks": rows, "R": R.tolist()}
        for (arm, seed), (rows, R) in lives.items()
    ]


def label_axes(detection, alarms, tasks, target):
    """Name the axes of the two plots of nine digits: AUROC by task, alarms by digit at `target`."""
    detection.set(xlabel="newest digit learned", ylabel="AUROC of 0 against all learned",
                  xticks=tasks, title="Detection (mean and range over seeds)")  # fmt: skip
    alarms.axhline(100 * target, color="black", linewidth=0.8, linestyle="--")
    alarms.set(xlabel="digit", ylabel="false alarms, % (logarithmic above 2)", xticks=tasks,
               title="False alarms after the last digit (target dashed)")  # fmt: skip
    alarms.set_yscale("symlog", linthresh=2)
    alarms.set_yticks([0, 1, 2, 5, 10, 30, 100], ["0", "1", "2", "5", "10", "30", "100"])
