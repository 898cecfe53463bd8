"""How much admission holds back: contamination, clean normals, new regimes, scattered rows.

A champion learns one regime of a data set; then batches arrive. Four columns are shares of rows
that are held back. `held` is that of known anomalies, which are a tenth of their batch. `clean` is
that of the normals in the same batches, `quiet` that of batches without anomalies. `scattered` is
that of unrelated rows: the set's own normals, with each feature shuffled separately. `regime` is
the share of rows admitted from a clean batch of another regime, and `whole` the share of such
batches that pass whole.

`alarming` is the share of known anomalies with p <= 1 % under the champion. Admission cannot find
anomalies that the champion does not find.

    ANAMNESIS_DATA=data python -m benchmarks.admission --output benchmarks/results/admission.json
"""

import os
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.report import arguments, report
from models import Config, train
from models.decisions.admission import ALPHA, admit

BATCH = 1000
_MOST = 4000  # the vectors of its regime that the champion learns


def concepts(seed):
    """Yield (regime, normals of the others, anomalies) for each concept of NSL-KDD-R."""
    arrays = data.load("pyclad_nsl_kdd_r.npz")
    trains = np.split(arrays["X_train"], arrays["train_offsets"][1:-1])
    tests = np.split(arrays["X_test"], arrays["test_offsets"][1:-1])
    labels = np.split(arrays["y_test"], arrays["test_offsets"][1:-1])
    rng = np.random.default_rng(seed)
    normals = [
        rng.permutation(np.concatenate([a, b[y == 0]]))
        for a, b, y in zip(trains, tests, labels, strict=True)
    ]
    for i, concept in enumerate(normals):
        others = [rows for j, rows in enumerate(normals) if j != i]
        yield concept, others, tests[i][labels[i] == 1]


def digits(seed):
    """Yield MNIST: 1 to 5 are known, other digits are regimes, shuffled pixels anomalies."""
    X, y, *_ = data.mnist()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    X, y = X[order], y[order]
    old = X[np.isin(y, [1, 2, 3, 4, 5])]
    others = [X[y == digit][:BATCH] for digit in (0, 6, 7, 8, 9)]
    yield old[:7000], others, rng.permuted(old[7000:9000], axis=1)


def clusters_of(name):
    """Return a generator over an ADBench set; each of three clusters of its normals is a regime."""

    def clusters(seed):
        from sklearn.cluster import KMeans

        arrays = data.load(f"adbench/{name}.npz")
        X, y = arrays["X"].astype(np.float32), arrays["y"]
        rng = np.random.default_rng(seed)
        normals = rng.permutation(X[y == 0])[:12_000]
        scaled = (normals - normals.mean(axis=0)) / (normals.std(axis=0) + 1e-9)
        labels = KMeans(3, n_init=3, random_state=seed).fit_predict(scaled)
        other = np.argsort(np.bincount(labels))[1]
        yield normals[labels != other], [normals[labels == other]], rng.permutation(X[y == 1])

    return clusters


SETS = {
    "NSL-KDD-R": concepts,
    "MNIST": digits,
    "shuttle": clusters_of("shuttle"),
    "http": clusters_of("http"),
    "musk": clusters_of("musk"),
    "satimage_2": clusters_of("satimage_2"),
    "thyroid": clusters_of("thyroid"),
    "cardio": clusters_of("cardio"),
}


def figures_of(regime, others, anomalies, seed):
    """Return the figures of one champion."""
    rng = np.random.default_rng(seed)
    n = min(_MOST, int(0.6 * len(regime)))
    version = train(None, regime[:n].astype(np.float32), Config(seed=seed))
    rest = regime[n:][:BATCH]
    few = rng.permutation(anomalies)[: max(1, len(rest) // 9)]
    alarming = float((version.p_values(few) <= ALPHA).mean())

    def held(X):
        return admit(version, X, version.threshold_for({"fpr": ALPHA})).held

    start = time.perf_counter()
    mixed = held(np.concatenate([rest, few]))
    milliseconds = 1000 * (time.perf_counter() - start)
    admitted = [1.0 - held(rng.permutation(other)[:BATCH]).mean() for other in others]
    return {
        "alarming": alarming,
        "held": float(mixed[len(rest) :].mean()),
        "clean": float(mixed[: len(rest)].mean()),
        "quiet": float(held(rest).mean()),
        "regime": float(np.mean(admitted)),
        "whole": float(np.mean(np.array(admitted) == 1.0)),
        "scattered": float(held(rng.permuted(rest, axis=0)).mean()),
        "ms": milliseconds,
    }


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    args = parser.parse_args()
    rows, figures = [], []
    for name in args.sets:
        done = [
            {"set": name, "seed": seed} | figures_of(*world, seed)
            for seed in range(args.seeds)
            for world in SETS[name](seed)
        ]
        figures += done
        columns = [column for column in done[0] if column not in {"set", "seed"}]
        rows.append({"set": name} | {c: float(np.mean([run[c] for run in done])) for c in columns})
        print(rows[-1], file=sys.stderr, flush=True)
    report("admission", rows, args.output, figures=figures)


if __name__ == "__main__":
    main()
