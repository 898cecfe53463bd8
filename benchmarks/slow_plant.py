"""A simulated plant whose states change slowly: held rate and AUROC for few and for many rows.

Twelve hidden states move 52 sensors; each sensor has a delay and noise of its own. A state lasts
between 3 rows and twice as many as the column `states last` says. A version learns the first rows
of one run. It judges 960 normals of a later run and the rows of twelve faults: steps, ramps, wider
variation, and sensors that lose their relation to the others. `held` is the share of the normals
that alarms at 1 % asked.

    python -m benchmarks.slow_plant --seeds 2 --output benchmarks/results/slow_plant.json
"""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded

import numpy as np
from sklearn.covariance import EmpiricalCovariance

from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from models import Config, train
from models.parts.statistics import auroc

ARMS = ("auto", "elbo", "Mahalanobis")
STATES, SENSORS, FAULTS = 12, 52, 12
LASTS = (8, 30)  # rows
LEARNED = (500, 1000, 2000, 6000)  # rows
JUDGED = 960  # rows


def rows(n, lasts, seed, fault=None):
    """Return n rows of one run of the plant, (n, 52), with or without a fault."""
    plant = np.random.default_rng(7)
    mixing = plant.normal(size=(STATES, SENSORS)) * plant.uniform(0.2, 1.0, (STATES, 1))
    kept = np.exp(-1.0 / plant.uniform(3, 2 * lasts, STATES))
    noise, delays = plant.uniform(0.1, 0.8, SENSORS), plant.integers(20, size=SENSORS)
    rng, start = np.random.default_rng(seed), 10 * lasts + 20
    states = rng.normal(size=(start + n, STATES)) * np.sqrt(1.0 - kept**2)
    for i in range(1, len(states)):
        states[i] += kept * states[i - 1]
    states[:, 0] = np.tanh(2.0 * states[:, 0])
    X = np.stack([states[start - by : start - by + n] @ w
                  for by, w in zip(delays, mixing.T, strict=True)], axis=1)  # fmt: skip
    X += rng.normal(size=X.shape) * noise
    return (X if fault is None else faulty(X, fault, rng)).astype(np.float32)


def faulty(X, fault, rng):
    """Return X (n, d) with a fault in one to four sensors."""
    of_fault = np.random.default_rng(50 + fault)
    sensors = of_fault.choice(SENSORS, of_fault.integers(1, 5), replace=False)
    x = X[:, sensors]
    signs = of_fault.choice([-1, 1], len(sensors))
    size = x.std(axis=0) * signs * of_fault.uniform(1.5, 3.0)
    match fault % 4:
        case 0:  # a step
            x = x + size
        case 1:  # a ramp
            x = x + size * np.linspace(0.0, 1.0, len(x))[:, None]
        case 2:  # wider variation
            x = x.mean(axis=0) + (x - x.mean(axis=0)) * of_fault.uniform(2.0, 3.0)
        case _:  # no relation to the other sensors
            x = rng.permutation(x)
    X[:, sensors] = x
    return X


def job(arm, lasts, n, seed):
    """Return the figures of a version that learned n rows."""
    learned, later = rows(n, lasts, seed), rows(JUDGED, lasts, 100 + seed)
    faults = [rows(JUDGED, lasts, 200 + seed, fault) for fault in range(FAULTS)]
    start = time.process_time()
    if arm == "Mahalanobis":
        score, threshold = EmpiricalCovariance().fit(learned).mahalanobis, None
    else:
        version = train(None, learned, Config(score=arm, seed=seed))
        score, threshold = version.score, version.threshold
    cpu = time.process_time() - start
    normal, strange = score(later), [score(X) for X in faults]
    figures = {"auroc": float(np.mean([auroc(normal, scores) for scores in strange])), "cpu": cpu}
    if threshold is None:
        return figures
    return figures | {
        "held": float((normal >= threshold).mean()),
        "found": float(np.mean([(scores >= threshold).mean() for scores in strange])),
    }


def main():
    args = run_arguments(arguments(__doc__), ARMS).parse_args()
    keys = [(arm, lasts, n, seed) for seed in range(args.seeds) for lasts in LASTS
            for n in LEARNED for arm in args.arms]  # fmt: skip
    results = Runs.of(args).run(job, keys, lambda run: f"AUROC {run['auroc']:.3f}")
    table = []
    for arm, lasts, n in dict.fromkeys(key[:3] for key in results):
        runs = [run for key, run in results.items() if key[:3] == (arm, lasts, n)]
        line = {"states last": lasts, "learned": n, "arm": arm, "seeds": len(runs)}
        line["AUROC"] = spread(run["auroc"] for run in runs)
        for name in ("held", "found"):
            known = [100 * run[name] for run in runs if name in run]
            line[f"{name} %"] = spread(known, 1) if known else ""
        table.append(line | {"CPU s": float(np.mean([run["cpu"] for run in runs]))})
    figures = with_keys(("arm", "lasts", "learned", "seed"), results)
    report("slow_plant", table, args.output, figures=figures)


if __name__ == "__main__":
    main()
