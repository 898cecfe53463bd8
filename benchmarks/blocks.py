"""Blocks of normal rows arrive one after another, or come again: held rates, AUROC and regimes.

- `SMD`: two servers, each cut into three consecutive blocks. The blocks of the servers arrive
  alternately. `SMD +10` adds each value's deviation from its mean over the 10 rows before, by
  server, as `context` derives it.
- `SKAB`: the normal rows of a water pump, a block for each of three series of runs.
- `digits`: scikit-learn's digits 1 to 9; 0 is the anomaly.
- `NSL-KDD-R`: pyCLAD's five concepts.

Of each block a sixth of the rows is never learned, but judged: short runs of successive rows that
are spread over the block. `once` learns each block in one piece. `five rounds` learns a fifth of
the other rows in every round, so a block comes again with other rows; `digits` has too few rows for
that.

After each round, all blocks are judged. `held` is the share of the judged normals that alarm at 1 %
asked, `worst` the same share of the block where it is largest. `information` is the adjusted mutual
information between the nearest regime of each judged normal and its group. A group is a server, a
series, a digit or a concept. `found` is the share of the anomalies that alarm.

    ANAMNESIS_DATA=data python -m benchmarks.blocks --output benchmarks/results/blocks.json
"""

import os
import time
from functools import partial
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_mutual_info_score

from benchmarks import data
from benchmarks.arms import learner
from benchmarks.continual_nsl_kdd import concepts
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from benchmarks.telemetry import with_deviation
from models.parts.statistics import auroc

ARMS = ("replay, auto", "replay", "replay, by regime", "mahalanobis")
WAYS = {"once": 1, "five rounds": 5}  # rounds
ROUNDS = 5  # a block is cut into ROUNDS parts to learn, and one part to judge
RUNS = 10  # short runs of successive rows in a part
BLOCKS = 3  # of each server


class Blocks(NamedTuple):
    """Blocks (n, d) in the order of arrival, the group of each, and anomalies (m, d)."""

    blocks: list[np.ndarray]
    groups: list[int]
    anomalies: np.ndarray


def smd(over=0):
    """Return the servers' blocks, and the anomalies of their test parts."""
    arrays = data.load("smd_a.npz")
    of_server, anomalies = [], []
    for i in range(len(arrays["names"])):
        train = slice(*arrays["train_offsets"][i : i + 2])
        test = slice(*arrays["test_offsets"][i : i + 2])
        of_server.append(np.array_split(with_deviation(arrays["X_train"][train], over), BLOCKS))
        anomalies.append(with_deviation(arrays["X_test"][test], over)[arrays["y_test"][test] == 1])
    blocks = [block for turn in zip(*of_server, strict=True) for block in turn]
    return Blocks(blocks, [i % len(of_server) for i in range(len(blocks))], np.vstack(anomalies))


def skab():
    """Return the pump's normal rows by series of runs, in time order, and its anomalies."""
    arrays = data.load("skab.npz")
    runs: dict[str, list[np.ndarray]] = {}
    for i in np.argsort(arrays["timestamp"][arrays["offsets"][:-1]]):
        rows = slice(*arrays["offsets"][i : i + 2])
        series = str(arrays["names"][i]).split("/")[0]
        runs.setdefault(series, []).append(arrays["X"][rows][arrays["y"][rows] == 0])
    blocks = [np.concatenate(runs_of_series) for runs_of_series in runs.values()]
    return Blocks(blocks, list(range(len(blocks))), arrays["X"][arrays["y"] == 1])


def digits():
    X, y = load_digits(return_X_y=True)
    return Blocks([X[y == digit] for digit in range(1, 10)], list(range(1, 10)), X[y == 0])


def nsl_kdd():
    learned, judged = concepts()
    normals, anomalies = zip(*judged, strict=True)
    blocks = [np.concatenate(both) for both in zip(learned, normals, strict=True)]
    return Blocks(blocks, list(range(len(blocks))), np.concatenate(anomalies))


SETS = {"SMD": smd, "SMD +10": partial(smd, 10), "SKAB": skab, "digits": digits,
        "NSL-KDD-R": nsl_kdd}  # fmt: skip


def parts(X):
    """Return the rows of X (n, d) in `ROUNDS` + 1 parts of equal size; the last is judged.

    Each part is `RUNS` short runs of successive rows, spread over the block.
    """
    part = np.arange(len(X)) * RUNS * (ROUNDS + 1) // len(X) % (ROUNDS + 1)
    return [X[part == i].astype(np.float32) for i in range(ROUNDS + 1)]


def judge(model, judged, groups, anomalies):
    """Return the figures of a learner on the judged normals, a list of (n, d) by block."""
    scores, strange = [model.score(X) for X in judged], model.score(anomalies)
    threshold, normals = model.thresholds()["fpr"], np.concatenate(judged)
    rates = [float((scores_of_block >= threshold).mean()) for scores_of_block in scores]
    regimes = model.version.nearest_regime(normals)
    return {
        "auroc": auroc(np.concatenate(scores), strange),
        "held": float((np.concatenate(scores) >= threshold).mean()),
        "by block": rates,
        "found": float((strange >= threshold).mean()),
        "regimes": len(model.version.lineage.regimes),
        "information": float(
            adjusted_mutual_info_score(np.repeat(groups, [len(X) for X in judged]), regimes)
        ),
    }


def job(name, arm, way, seed):
    """Return the figures after each round."""
    blocks, groups, anomalies = SETS[name]()
    cut = [parts(X) for X in blocks]
    judged, anomalies = [block_parts[-1] for block_parts in cut], anomalies.astype(np.float32)
    model, results, rounds = learner(arm, seed), [], WAYS[way]
    start = time.process_time()
    for i in range(rounds):
        for block_parts in cut:
            model.learn(np.concatenate(block_parts[:-1]) if rounds == 1 else block_parts[i])
        results.append(judge(model, judged, groups, anomalies))
        results[-1] |= {"experiences": model.experiences, "cpu": time.process_time() - start}
    return results


def description(results):
    last = results[-1]
    return (f"AUROC {last['auroc']:.3f}, held {100 * last['held']:.2f} %, "
            f"information {last['information']:.2f}")  # fmt: skip


def line(key, runs):
    """Return a line of the table: an arm on a set after one round, over its seeds."""
    name, arm, way = key
    by_block = 100 * np.mean([run["by block"] for run in runs], axis=0)
    return {
        "set": name,
        "arm": arm,
        "way": way,
        "experiences": runs[0]["experiences"],
        "seeds": len(runs),
        "AUROC": spread(run["auroc"] for run in runs),
        "held %": spread((100 * run["held"] for run in runs), 2),
        "worst %": spread((100 * max(run["by block"]) for run in runs), 2),
        "held % by block": ", ".join(f"{rate:.1f}" for rate in by_block),
        "found %": spread((100 * run["found"] for run in runs), 1),
        "regimes": float(np.mean([run["regimes"] for run in runs])),
        "information": spread(run["information"] for run in runs),
        "CPU s": float(np.mean([run["cpu"] for run in runs])),
    }


def main():
    parser = run_arguments(arguments(__doc__), ARMS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    keys = [(n, a, w, s) for s in range(args.seeds) for n in args.sets for w in args.ways
            for a in args.arms if (n, w) != ("digits", "five rounds")]  # fmt: skip
    kept = Runs.of(args)
    results = kept.run(job, keys, description)
    rows = []
    for shown in dict.fromkeys(key[:3] for key in results):
        rounds_of_seeds = [rounds for key, rounds in results.items() if key[:3] == shown]
        rows += [line(shown, list(of_round)) for of_round in zip(*rounds_of_seeds, strict=True)]
    rounds_by_key = {key: {"rounds": rounds} for key, rounds in results.items()}
    figures = with_keys(("set", "arm", "way", "seed"), rounds_by_key)
    report("blocks", rows, args.output, figures=figures)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")


if __name__ == "__main__":
    main()
