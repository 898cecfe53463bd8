"""Learn nine digits one after another and measure what is left of each, arm by arm.

The demonstration's protocol with the library alone: scikit-learn's 8x8 digits, 0 is the anomaly,
1 to 9 are learned one at a time. After every task the test rows of 0 are ranked against those of
all digits learned so far (AUROC), and the false alarms at the target rate are counted on each.

    python benchmarks/continual_digits.py --output benchmarks/results/digits.json
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.continual import label_axes
from benchmarks.report import arguments, report
from models import Config, Replay, train
from service.demo import ANOMALY, TARGET, TASKS, Digits

ARMS = {
    "replay": {},
    "replay, literature": {"replay": Replay(latents="prior", decode="mean"), "weights": "equal"},
    "replay, prior + noise": {"replay": Replay(latents="prior", decode="sample")},
    "finetune": {"strategy": "finetune"},
    "joint": {"strategy": "joint"},
}


def one_thread():
    """Keep small networks on one core: two threads wait for each other more than they help."""
    import torch

    torch.set_num_threads(1)


def lifetime(arm, seed):
    """Return one row for each task: AUROC, alarm rate of each digit learned, seconds."""
    digits = Digits.split(seed)
    config = Config(threshold={"fpr": TARGET}, seed=seed, **ARMS[arm])
    version, rows = None, []
    for digit in TASKS:
        start = time.perf_counter()
        version = train(version, digits.train[digit], config)
        seconds = time.perf_counter() - start
        judged = {d: version.judge(digits.test[d]) for d in (ANOMALY, *range(TASKS[0], digit + 1))}
        anomalous = judged.pop(ANOMALY)
        normal = np.concatenate([j.scores for j in judged.values()])
        truth = np.repeat([0, 1], [len(normal), len(anomalous.scores)])
        alarms = [j.is_anomaly for j in judged.values()]
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "task": digit,
                "auroc": float(roc_auc_score(truth, np.append(normal, anomalous.scores))),
                "found": float(anomalous.is_anomaly.mean()),
                "pooled": float(np.concatenate(alarms).mean()),
                "alarms": {d: float(a.mean()) for d, a in zip(judged, alarms, strict=True)},
                "seconds": seconds,
            }
        )
    return rows


def measure(arms, seeds, workers):
    """Return the rows of every arm and seed, saying on stderr how far it is."""
    jobs = [(arm, seed) for seed in range(seeds) for arm in arms]
    start, rows = time.perf_counter(), []
    with ProcessPoolExecutor(workers, initializer=one_thread) as pool:
        running = [pool.submit(lifetime, *job) for job in jobs]
        for i, done in enumerate(as_completed(running), start=1):
            rows += done.result()
            last = rows[-1]
            print(
                f"[{i}/{len(jobs)}, {time.perf_counter() - start:.0f} s] {last['arm']}, seed "
                f"{last['seed']}: final AUROC {last['auroc']:.3f}, "
                f"held {100 * last['pooled']:.2f} %",
                file=sys.stderr,
            )
    return sorted(rows, key=lambda row: (list(ARMS).index(row["arm"]), row["seed"], row["task"]))


def summary(rows, arm):
    """Return one line of the table: what an arm comes to, averaged over the seeds."""
    own = [row for row in rows if row["arm"] == arm]
    final = [row for row in own if row["task"] == TASKS[-1]]
    digits = per_digit(rows, arm)
    worst = max(digits, key=digits.__getitem__)
    finals = [row["auroc"] for row in final]
    return {
        "arm": arm,
        "AUROC mean": mean(own, "auroc"),
        "final": float(np.mean(finals)),
        "final sd": float(np.std(finals)),
        "held %": 100 * mean(final, "pooled"),
        "worst digit": worst,
        "its %": digits[worst],
        "zeros found %": 100 * mean(final, "found"),
        "s a task": mean(own, "seconds"),
    }


def per_digit(rows, arm):
    """Return the false-alarm rate of each digit after the last task, %, over the seeds."""
    final = [row for row in rows if row["arm"] == arm and row["task"] == TASKS[-1]]
    return {d: 100 * float(np.mean([row["alarms"][d] for row in final])) for d in TASKS}


def mean(rows, key):
    return float(np.mean([row[key] for row in rows]))


def picture(rows, arms, path):
    """Draw AUROC over the tasks, and each digit's final false-alarm rate, for every arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, arm in enumerate(arms):
        own = [[r["auroc"] for r in rows if r["arm"] == arm and r["task"] == t] for t in TASKS]
        low, high = np.min(own, axis=1), np.max(own, axis=1)
        left.plot(TASKS, np.mean(own, axis=1), marker="o", markersize=4, label=arm)
        left.fill_between(TASKS, low, high, alpha=0.15)
        rates = list(per_digit(rows, arm).values())
        right.bar(np.array(TASKS) + (i - (len(arms) - 1) / 2) * 0.8 / len(arms), rates,
                  width=0.8 / len(arms), label=arm)  # fmt: skip
    label_axes(left, right, TASKS, TARGET)
    left.legend(loc="lower left", fontsize="small")
    figure.savefig(path, dpi=120)


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    args = parser.parse_args()
    rows = measure(args.arms, args.seeds, args.workers)
    lines = [summary(rows, arm) for arm in args.arms]
    digits = {arm: per_digit(rows, arm) for arm in args.arms}
    report("continual_digits", lines, args.output, target=TARGET, per_digit=digits, tasks=rows)
    print()
    for arm in args.arms:
        print(f"{arm}: % by digit", "  ".join(f"{d}: {r:.1f}" for d, r in digits[arm].items()))
    if args.output:
        picture(rows, args.arms, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
