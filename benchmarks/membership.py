"""Membership inference: guess which vectors a version was trained on.

Every experience is split in halves at random: members are learned by a detector with the defaults,
non-members are never seen. An attacker who has the artifact guesses whether a vector was learned,
in three ways. The result is an AUC (0.5 is chance; 1 means that every member is recognised):

- score: the version's score; members should score lower. `part`: the one part of the score `auto`
  that recognises members best, such as the distance to the nearest centre.
- distance: to the nearest of 10,000 vectors drawn from the generator; members should be nearer.
- listed: whether the vector's score is, bit for bit, one of the version's calibration scores. The
  figures are the shares of members and of non-members of which this is true.

    ANAMNESIS_DATA=data python -m benchmarks.membership --output benchmarks/results/membership.json
"""

import os
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from benchmarks import data
from benchmarks.report import arguments, report
from benchmarks.runs import few_threads
from models import Config, train
from models.scores.auto import Auto, parts_of

DRAWN = 10_000
SEEDS = 3
ADBENCH = ("cardio", "satellite")
EXPERIENCES = 3  # of an ADBench set


def digits(seed):
    """Return one (members, non-members) for each of the digits 1 to 9."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    return [halves(X[y == digit], rng) for digit in range(1, 10)]


def adbench(name, seed):
    """Return the normals of a set in three random experiences, each as (members, non-members)."""
    arrays = data.load(f"adbench/{name}.npz")
    rng = np.random.default_rng(seed)
    normals = rng.permutation(arrays["X"][arrays["y"].ravel() == 0])
    return [halves(part, rng) for part in np.array_split(normals, EXPERIENCES)]


def halves(X, rng):
    """Return two halves of the rows, drawn at random, float32."""
    X = rng.permutation(X).astype(np.float32)
    return X[: len(X) // 2], X[len(X) // 2 :]


def run_experiences(name, seed, score):
    """Return one row for each version: how well each guess recognises the members so far."""
    experiences = digits(seed) if name == "digits" else adbench(name, seed)
    version, rows = None, []
    for number, (learned, _) in enumerate(experiences, 1):
        version = train(version, learned, Config(score=score, seed=seed))
        members, others = (np.concatenate(parts) for parts in zip(*experiences[:number]))  # noqa: B905
        rows.append({"data": name, "version": number, **guesses(version, members, others, seed)})
        if score == "auto":
            rows[-1]["part"] = best_part(version, members, others)
        first = guesses(version, *experiences[0], seed)
        rows[-1] |= {"first, score": first["score"], "first, distance": first["distance"]}
    return rows


def guesses(version, members, others, seed):
    """Return AUCs and shares for rows that were learned (n, d) and rows that were not (m, d)."""
    truth = np.repeat([1, 0], [len(members), len(others)])
    scores = version.score(np.concatenate([members, others]))
    spread = np.maximum(members.std(axis=0), 1e-6)
    bank = NearestNeighbors(n_neighbors=1).fit(version.sample(DRAWN, seed=seed) / spread)
    distances = bank.kneighbors(np.concatenate([members, others]) / spread)[0][:, 0]
    listed = np.isin(scores, version.calibration.scores)
    return {
        "score": float(roc_auc_score(truth, -scores)),
        "distance": float(roc_auc_score(truth, -distances)),
        "listed": float(listed[truth == 1].mean()),
        "by chance": float(listed[truth == 0].mean()),
    }


def best_part(version, members, others):
    """Return the AUC of the part of the score `auto` that recognises members best."""
    x = version.scaler.transform(np.concatenate([members, others]))
    truth = np.repeat([1, 0], [len(members), len(others)])
    parts = parts_of(Auto.from_tensors(version.network, version.scoring), x)
    return max(float(roc_auc_score(truth, -part)) for part in parts)


def summary(runs):
    """Return the mean over the seeds, and the deviation of the two AUCs, version by version."""
    rows = []
    for versions in zip(*runs, strict=True):
        row = {key: versions[0][key] for key in ("data", "version")}
        for key in list(versions[0])[2:]:
            values = [version[key] for version in versions]
            row[key] = float(np.mean(values))
            if key in {"score", "distance"}:
                row[f"+- {key}"] = float(np.std(values))
        rows.append(row)
    return rows


def main():
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--score", default=Config().score, help="score of the detector (auto)")
    args = parser.parse_args()
    names = ["digits"]
    names += [name for name in ADBENCH if (data.folder() / f"adbench/{name}.npz").exists()]
    with ProcessPoolExecutor(args.processes, initializer=few_threads, initargs=(1,)) as pool:
        futures = {
            (n, s): pool.submit(run_experiences, n, s, args.score)
            for n in names
            for s in range(args.seeds)
        }
        runs = {key: future.result() for key, future in futures.items()}
    rows = []
    for name in names:
        rows += summary([runs[name, seed] for seed in range(args.seeds)])
    report("membership", rows, args.output, seeds=args.seeds, drawn=DRAWN)


if __name__ == "__main__":
    main()
