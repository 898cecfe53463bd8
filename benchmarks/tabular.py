"""Detect the anomalies of tabular sets, defaults against what scikit-learn offers.

ADBench's protocol for semi-supervised detection: half of the normals to learn from, the other
half and all anomalies to rank (AUROC). Nobody's hyperparameters are tuned. Sets are capped, the
same rows for everyone, so that the whole table takes minutes.

    ANAMNESIS_DATA=data python benchmarks/tabular.py --output benchmarks/results/tabular.json
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks import data
from benchmarks.continual import Ours, auroc, one_thread
from benchmarks.report import arguments, report
from models import Config


class Scikit:
    """A detector of scikit-learn's, or one line on top of it; scores as ours, higher is worse."""

    def __init__(self, name, seed):
        self.name, self.seed = name, seed

    def learn(self, X):
        """Fit on the normals X (n, d)."""
        self.fitted = _FITS[self.name](X, self.seed)

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.fitted(X)


def _knn(X, seed):
    from sklearn.neighbors import NearestNeighbors

    del seed
    fitted = NearestNeighbors(n_neighbors=5).fit(X)
    return lambda rows: fitted.kneighbors(rows)[0][:, -1]


def _forest(X, seed):
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(random_state=seed).fit(X)
    return lambda rows: -fitted.score_samples(rows)


def _ocsvm(X, seed):
    from sklearn.svm import OneClassSVM

    few = np.random.default_rng(seed).permutation(len(X))[:5_000]  # its cost is quadratic
    fitted = OneClassSVM().fit(X[few])
    return lambda rows: -fitted.score_samples(rows)


def _pca(X, seed):
    from sklearn.decomposition import PCA

    fitted = PCA(0.9, svd_solver="full", random_state=seed).fit(X)
    return lambda rows: np.square(rows - fitted.inverse_transform(fitted.transform(rows))).sum(
        axis=1
    )


def _mahalanobis(X, seed):
    del seed
    mean, spread = X.mean(axis=0), np.linalg.pinv(np.cov(X, rowvar=False), hermitian=True)
    return lambda rows: np.einsum("ni,ij,nj->n", rows - mean, spread, rows - mean)


_FITS = {
    "5-NN": _knn, "IForest": _forest, "OCSVM": _ocsvm, "PCA": _pca, "Mahalanobis": _mahalanobis,
}  # fmt: skip


def detector(arm, seed):
    """Return a detector by its arm's name: `elbo` and the like are scores of ours."""
    return Scikit(arm, seed) if arm in _FITS else Ours(Config(score=arm, seed=seed))


def split(path, seed, most):
    """Return (train, normals, anomalies): half of the normals each, at most `most` rows each."""
    arrays = data.load(f"adbench/{path}")
    X, y = arrays["X"].astype(np.float32), arrays["y"].ravel()
    rng = np.random.default_rng(seed)
    normal = X[y == 0][rng.permutation(int((y == 0).sum()))]
    anomalous = X[y == 1][rng.permutation(int((y == 1).sum()))]
    half = len(normal) // 2
    return normal[:half][:most], normal[half:][:most], anomalous[:most]


def job(most, path, arm, seed):
    """Return one figure: a detector on a set."""
    train, normals, anomalies = split(path, seed, most)
    one = detector(arm, seed)
    start = time.perf_counter()
    if arm in _FITS and arm != "IForest":
        center, scale = train.mean(axis=0), train.std(axis=0)
        scale[scale <= 1e-6 * np.abs(center)] = 1.0
        train, normals, anomalies = ((X - center) / scale for X in (train, normals, anomalies))
    one.learn(train)
    learned = time.perf_counter() - start
    value = auroc(one.score(normals), one.score(anomalies))
    return {"set": path, "arm": arm, "seed": seed, "auroc": value, "seconds": learned}


def measure(args):
    """Return the figures of every set, arm and seed, telling stderr how far it is."""
    files = sorted(path.name for path in (data.folder() / "adbench").glob("*.npz"))
    if not files:
        data.load("adbench/annthyroid.npz")
    jobs = [(f, a, s) for f in files for a in args.arms for s in range(args.seeds)]
    done, start = [], time.perf_counter()
    with ProcessPoolExecutor(args.workers, initializer=one_thread) as pool:
        running = [pool.submit(partial(job, args.most), *one) for one in jobs]
        for i, future in enumerate(as_completed(running), start=1):
            done.append(one := future.result())
            print(
                f"[{i}/{len(jobs)}, {time.perf_counter() - start:.0f} s] {one['set']} "
                f"{one['arm']}: {one['auroc']:.3f} ({one['seconds']:.1f} s)",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return files, done


def main():
    names = ["elbo", "reconstruction", *_FITS]
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--arms", nargs="+", default=names, help="scores of ours, or: " + " ".join(_FITS)
    )
    parser.add_argument("--most", type=int, default=10_000, help="rows of each kind (10000)")
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    args = parser.parse_args()
    files, done = measure(args)
    rows = []
    for name in [*files, None]:
        row = {"set": name.removesuffix(".npz") if name else "mean"}
        for arm in args.arms:
            own = [one["auroc"] for one in done if one["arm"] == arm and name in (one["set"], None)]
            row[arm] = float(np.mean(own))
        rows.append(row)
    report("tabular", rows, args.output, figures=done)


if __name__ == "__main__":
    main()
