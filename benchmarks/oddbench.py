"""Detect anomalies on OddBench's tables, learned at once or as five experiences; nothing is tuned.

OddBench (macrOData, KDD 2026): each table has normals to learn from and rows to rank, as given. `at
once` learns all normals in one training. `five experiences` cuts them by k-means into five that
arrive one after another, as regimes do. Peers get standardised rows; `5-NN mean` is the mean
distance to the five nearest. `reservoir` is the same distance for a uniform sample of all rows so
far, with as many bytes as the version's artifact; of a smaller table it keeps all rows. Every arm
of this project also prints two ablations: the score without the network's part, and without the
densities (which is `elbo`). `finetune`, the third ablation, has no replay. Tables are numbered by
name from 1: scores were chosen on the odd ones. `behind` counts the tables on which an arm is more
than 0.05 below the better of 5-NN and Mahalanobis, which keep all rows. `recall` is the share of
the anomalies above the score that 1 % or 0.1 % of the judged normals exceed. `held at 1 %` is the
share of these normals that reaches the threshold of the last version, and `held first` the share
that reaches the threshold of the version after the first experience.

    ANAMNESIS_DATA=data python -m benchmarks.oddbench --output benchmarks/results/oddbench.json
"""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.ablations import ablated
from benchmarks.learners import FITS
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from models import MIN_VECTORS, Config, Version, train
from models.parts.statistics import auroc

FILE = "oddbench_dev.npz"
RATES = (0.01, 0.001)
OURS = {
    "auto": {},
    "auto, joint": {"strategy": "joint"},
    "auto, finetune": {"strategy": "finetune"},
    "elbo": {"score": "elbo"},
    "neighbours": {"score": "neighbours"},
}
PEERS = ("5-NN", "5-NN mean", "Mahalanobis", "IForest")
ARMS = (*OURS, *PEERS)
WAYS = ("at once", "five experiences")
CONTINUAL = ("auto, joint", "auto, finetune")  # the same as `auto` if all rows come at once
BEST, BEHIND = ("5-NN", "Mahalanobis"), 0.05


def tables():
    """Return {name: (train, test, y)} in the order of the names."""
    arrays = data.load(FILE)
    names = sorted({key.rsplit("/", 1)[0] for key in arrays})
    return {name: tuple(arrays[f"{name}/{part}"] for part in ("train", "test", "y"))
            for name in names}  # fmt: skip


def experiences(X, seed, way):
    """Return the rows of X (n, d) as they arrive, in a seeded order."""
    rng = np.random.default_rng(seed)
    X = X[rng.permutation(len(X))].astype(np.float32)
    if way == "at once":
        return [X]
    from sklearn.cluster import KMeans

    group_of = KMeans(5, n_init=3, random_state=seed).fit_predict(standardised(X, X))
    parts, left = [], X[:0]
    for cluster in range(5):  # too few rows for a training are joined with the next experience
        left = np.concatenate([left, X[group_of == cluster]])
        if len(left) >= MIN_VECTORS:
            parts, left = [*parts, left], X[:0]
    if len(left):
        parts[-1] = np.concatenate([parts[-1], left])
    return parts


def standardised(rows, X):
    """Return rows standardised by the mean and the deviation of X."""
    deviation = X.std(axis=0)
    deviation[deviation <= 1e-6 * np.abs(X).max(axis=0)] = 1.0
    return (rows - X.mean(axis=0)) / deviation


def figures_of_this_project(arm, seed, arriving, test, y):
    """Return the figures of this project's detector after all experiences."""
    config, version, figures = Config(seed=seed, **OURS[arm]), None, {}
    for i, X in enumerate(arriving):
        version = train(version, X, config)
        if i == 0:
            figures["held first"] = false_alarm_rate(version, test[y == 0])
    artifact = version.to_bytes()
    version = Version.from_bytes(artifact)  # as the service does: it raises if nobody can read it
    scores = version.score(test)
    figures |= quality(scores, y) | {"bytes": len(artifact)}
    for rate in RATES:
        threshold = version.threshold_for({"fpr": rate}).value
        figures[f"held {rate:g}"] = float((scores[y == 0] >= threshold).mean())
        figures[f"found {rate:g}"] = float((scores[y == 1] >= threshold).mean())
    for name, without_part in ablated(version, test).items():
        figures[name] = auroc(*split_by_label(without_part, y))
    if arm == "auto":
        X = np.concatenate(arriving)
        room = max(6, figures["bytes"] // (4 * X.shape[1]))
        kept = X[np.random.default_rng(seed).permutation(len(X))[:room]]
        figures["reservoir"] = auroc(*split_by_label(distance_to_neighbours(kept, X, test), y))
    return figures


def distance_to_neighbours(kept, X, test):
    """Return the mean distance of each test row to the five nearest of the kept rows of X."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=5).fit(standardised(kept, X))
    return neighbours.kneighbors(standardised(test, X))[0].mean(axis=1)


def false_alarm_rate(version, normals):
    """Return the share of normals that alarm under a version, at 1 % asked."""
    return float((version.score(normals) >= version.threshold_for({"fpr": RATES[0]}).value).mean())


def split_by_label(scores, y):
    return scores[y == 0], scores[y == 1]


def quality(scores, y):
    """Return the AUROC, and the share of anomalies above given quantiles of the normals."""
    normals, anomalies = split_by_label(scores, y)
    recalls = {
        f"recall {rate:g}": float((anomalies > np.quantile(normals, 1 - rate)).mean())
        for rate in RATES
    }
    return {"auroc": auroc(normals, anomalies)} | recalls


def figures_of_peer(arm, seed, arriving, test, y):
    """Return the figures of another library's detector that keeps every row."""
    X = np.concatenate(arriving)
    if arm in FITS:
        scores = FITS[arm](standardised(X, X), seed)(standardised(test, X))
    else:
        scores = distance_to_neighbours(X, X, test)
    return quality(scores, y) | {"bytes": int(X.nbytes)}


def job(name, arm, way, seed):
    """Return the figures of one arm on one table."""
    X, test, y = tables()[name]
    arriving = experiences(X, seed, way)
    start = time.process_time()
    figures_of = figures_of_this_project if arm in OURS else figures_of_peer
    results = figures_of(arm, seed, arriving, test.astype(np.float32), y)
    return results | {"rows": len(X), "cpu seconds": time.process_time() - start}


def tables_behind(runs, peers):
    """Return the tables where the mean of `runs`, figures by (table, seed), is behind the peers'.

    The result is {table: difference}; `peers` has the best peer's AUROC for each table.
    """
    lost_by_table = {}
    for name in sorted({name for name, _ in runs} & peers.keys()):
        lost = peers[name] - np.mean([f["auroc"] for (n, _), f in runs.items() if n == name])
        if lost > BEHIND:
            lost_by_table[name] = float(lost)
    return lost_by_table


def best_peers(results):
    """Return the AUROC of the better of `BEST` on each table, learned at once."""
    best = {}
    for (name, arm, way, _), figures in results.items():
        if arm in BEST and way == "at once":
            best[name] = max(best.get(name, 0.0), figures["auroc"])
    return best


def line(way, arm, runs, names, peers):
    """Return one line of the table; `runs` are figures by (table, seed)."""
    seeds = sorted({seed for _, seed in runs})

    def mean(key, among):
        by_seed = [[f[key] for (n, s), f in runs.items() if s == seed and n in among and key in f]
                   for seed in seeds]  # fmt: skip
        return (
            spread([np.mean(means_of_seed) for means_of_seed in by_seed if means_of_seed], 4)
            if any(by_seed)
            else None
        )

    large = [f["held 0.01"] for f in runs.values() if "held 0.01" in f and f["rows"] >= 500]
    return {
        "way": way,
        "arm": arm,
        "tables": len({name for name, _ in runs}),
        "seeds": len(seeds),
        "AUROC": mean("auroc", names),
        "odd": mean("auroc", names[0::2]),
        "even": mean("auroc", names[1::2]),
        "no network": mean("without the network", names),
        "no densities": mean("without the densities", names),
        "reservoir": mean("reservoir", names),
        "behind": len(tables_behind(runs, peers)) if peers else None,
        "recall 1 %": mean("recall 0.01", names),
        "recall .1 %": mean("recall 0.001", names),
        "held at 1 %": mean("held 0.01", names),
        "held first": mean("held first", names),
        "held in .3-2.5 %": float(np.mean([0.003 <= h <= 0.025 for h in large])) if large else None,
        "kilobytes": float(np.mean([f["bytes"] for f in runs.values()])) / 1000,
        "CPU s": float(np.mean([f["cpu seconds"] for f in runs.values()])),
    }


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tables", type=int, default=None, help="number of tables, by name")
    parser.add_argument("--numbers", type=int, nargs="+", help="these tables, numbered from 1")
    args = parser.parse_args()
    names = list(tables())
    chosen = [names[i - 1] for i in args.numbers] if args.numbers else names[: args.tables]
    keys = [(n, a, w, s) for s in range(args.seeds) for w in args.ways for a in args.arms
            for n in chosen if not (a in CONTINUAL and w == "at once")]  # fmt: skip
    kept = Runs.of(args)
    results = kept.run(job, keys, lambda run: f"AUROC {run['auroc']:.3f}")
    lines, peers, lost = [], best_peers(results), []
    for way in args.ways:
        for arm in args.arms:
            runs = {
                (table, seed): run
                for (table, *of_run, seed), run in results.items()
                if of_run == [arm, way]
            }
            lines += [line(way, arm, runs, names, peers)] if runs else []
            if arm == "auto":
                lost += [
                    {"way": way, "table": n, "behind": by}
                    for n, by in tables_behind(runs, peers).items()
                ]
    figures = with_keys(("table", "arm", "way", "seed"), results)
    report("oddbench", lines, args.output, {"Where `auto` is behind": lost}, figures=figures)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")


if __name__ == "__main__":
    main()
