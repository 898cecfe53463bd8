"""The weights of old and new vectors: detection on the old and on the new, for five policies.

The data are scikit-learn's 8x8 digits; 0 is the anomaly, 1 to 9 are learned one at a time. After
every digit from the second on, the test rows of 0 are ranked against those of the newest digit
(new) and against those of each earlier digit (old, the mean). `both` is the mean of old and new,
and `sd` the deviation of `old at the end` over the seeds. The policies are w_new = 0.2, 0.5 and
0.8, by counts (the default, `proportional`), and `auto`.

    python -m benchmarks.weights --output benchmarks/results/weights.json
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import runs
from benchmarks.report import arguments, report
from models import Config, train
from models.parts.statistics import auroc
from service.cli.demo.run import ANOMALY, TARGET, TASKS, Digits

ARMS = {
    "w_new 0.2": {"w_prev": 0.8, "w_new": 0.2},
    "w_new 0.5": {"w_prev": 0.5, "w_new": 0.5},
    "w_new 0.8": {"w_prev": 0.2, "w_new": 0.8},
    "by counts": "proportional",
    "auto": "auto",
}


def run_digits(arm, seed):
    """Return a row for each digit from the second on: w_new, and AUROC on the new and the old."""
    digits = Digits.split(seed)
    config = Config(score="elbo", weights=ARMS[arm], threshold={"fpr": TARGET}, seed=seed)
    version, rows = None, []
    for digit in TASKS:
        version = train(version, digits.train[digit], config)
        if digit == TASKS[0]:
            continue
        zero = version.score(digits.test[ANOMALY])
        each = [auroc(version.score(digits.test[d]), zero) for d in range(TASKS[0], digit + 1)]
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                "task": digit,
                "w_new": version.lineage.w_new,
                "old": float(np.mean(each[:-1])),
                "new": each[-1],
                "first": each[0],
                "probes": version.lineage.probes,
            }
        )
    return rows


def description(rows):
    """Return a short description of the last row."""
    return f"at the end old {rows[-1]['old']:.4f}, new {rows[-1]['new']:.4f}"


def summary(rows, arm):
    """Return one line of the table: an arm over its seeds, over all digits and after the last."""
    runs = [row for row in rows if row["arm"] == arm]
    last = [row for row in runs if row["task"] == TASKS[-1]]
    mean = {part: float(np.mean([row[part] for row in runs])) for part in ("old", "new", "w_new")}
    ends = [row["old"] for row in last]
    return {
        "weights": arm,
        "w_new": mean["w_new"],
        "old": mean["old"],
        "new": mean["new"],
        "both": (mean["old"] + mean["new"]) / 2,
        "old at the end": float(np.mean(ends)),
        "sd": float(np.std(ends)),
        "new at the end": float(np.mean([row["new"] for row in last])),
        "first digit at the end": float(np.mean([row["first"] for row in last])),
    }


def plot(rows, path):
    """Draw old and new after each digit, one panel each (mean over seeds)."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    tasks = TASKS[1:]
    for part, panel in zip(("old", "new"), panels, strict=True):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            values = [
                np.mean([r[part] for r in rows if r["arm"] == arm and r["task"] == t])
                for t in tasks
            ]
            panel.plot(tasks, values, marker=".", label=arm)
        panel.set(xlabel="newest digit learned", xticks=tasks, title=f"Detection on the {part}")
    panels[0].set_ylabel("AUROC of digit 0 against them")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main():
    """Measure and report."""
    parser = runs.arguments(arguments(__doc__), list(ARMS))
    options = parser.parse_args()
    keys = [(arm, seed) for arm in options.arms for seed in range(options.seeds)]
    measured = runs.Runs.of(options).run(run_digits, keys, description)
    rows = [row for run in measured.values() for row in run]
    lines = [summary(rows, arm) for arm in options.arms]
    report("weights of old and new", lines, options.output, runs=rows)
    if options.output is not None:
        plot(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
