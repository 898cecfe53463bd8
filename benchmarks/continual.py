"""One detector learns tasks one after another, and every task is measured after each."""

import time

import numpy as np

from benchmarks import runs
from benchmarks.arms import ARMS
from benchmarks.learners import TARGET
from benchmarks.pictures import two_curves
from benchmarks.report import arguments, report, spread
from benchmarks.runs import runs_of_arm
from benchmarks.transfer import all_measures, forgetting
from models.parts.statistics import auroc

HELD = (0.003, 0.025)  # a task holds its rate of 1 % if the measured rate lies between these


def run_tasks(learner, tasks, judged, watch=None):
    """Return (rows, R): one row for each task learned, and the AUROC of each task after it.

    Parameters
    ----------
    learner
        Learns `tasks`, a list of (n, d) arrays, in order.
    judged
        A list of (normals, anomalies), one for each task, to be separated; all tasks may share one
        array of anomalies.
    watch
        Called with the learner after every task.
    """
    R, rows = np.zeros((len(tasks), len(tasks))), []
    for i, X in enumerate(tasks):
        start = time.perf_counter()
        learner.learn(X)
        seconds = time.perf_counter() - start
        normal = [learner.score(normals) for normals, _ in judged]
        # Tasks may share one array of anomalies, which is scored once and counts once.
        arrays = {id(anomalies): anomalies for _, anomalies in judged}
        anomalous = {number: learner.score(array) for number, array in arrays.items()}
        of_task = [id(anomalies) for _, anomalies in judged]
        R[i] = [auroc(n, anomalous[number]) for n, number in zip(normal, of_task, strict=True)]
        seen = [anomalous[number] for number in dict.fromkeys(of_task[: i + 1])]
        learned = normal[: i + 1]
        thresholds = learner.thresholds()
        rows.append(
            {
                "task": i + 1,
                "auroc": auroc(np.concatenate(learned), np.concatenate(seen)),
                "seconds": seconds,
                "bytes_kept": learner.bytes_kept,
                "alarms": {
                    policy: [float(np.mean(scores >= threshold)) for scores in learned]
                    for policy, threshold in thresholds.items()
                },
                "pooled": {
                    policy: float(np.mean(np.concatenate(learned) >= threshold))
                    for policy, threshold in thresholds.items()
                },
            }
        )
        if watch:
            watch(learner)
    return rows, R


def run_as_json(rows, R):
    """Return the measurements of a run as JSON-able values."""
    return {"tasks": rows, "R": R.tolist()}


def nine_digits(learner, train, test, watch=None):
    """Learn digits 1 to 9, which arrive one by one; 0 is the anomaly.

    The protocol of Wiewel & Yang, Continual learning for anomaly detection with variational
    autoencoder, 2019. `train` and `test` hold each digit's images (n, d), by digit.
    """
    tasks = [train[digit] for digit in range(1, 10)]
    judged = [(test[digit], test[0]) for digit in range(1, 10)]
    return run_as_json(*run_tasks(learner, tasks, judged, watch))


def description(run):
    """Return a short description of a run."""
    last, rows = run["tasks"][-1], run["tasks"]
    rate = last["pooled"].get("fpr")
    return (
        f"AUROC mean {np.mean([row['auroc'] for row in rows]):.4f}, final {last['auroc']:.4f}, "
        f"{sum(row['seconds'] for row in rows):.0f} s"
        + ("" if rate is None else f", held {100 * rate:.2f} %")
    )


def summary(arm, runs):
    """Return one line of the table: the runs of an arm, one a seed."""
    measures = [all_measures(np.array(run["R"])) for run in runs]
    last = [run["tasks"][-1] for run in runs]
    of_tasks = [row["alarms"]["fpr"] for row in last if row["alarms"]]
    rows = [row for run in runs for row in run["tasks"]]
    return {
        "arm": arm,
        "seeds": len(runs),
        "AUROC mean": spread(np.mean([row["auroc"] for row in run["tasks"]]) for run in runs),
        "final": spread(row["auroc"] for row in last),
        **{name: float(np.mean([m[name] for m in measures])) for name in measures[0]},
        "held %": spread((100 * row["pooled"]["fpr"] for row in last if row["pooled"]), 2),
        "worst task %": 100 * float(np.mean(of_tasks, axis=0).max()) if of_tasks else None,
        "tasks held": float(np.mean([_within(rates) for rates in of_tasks])) if of_tasks else None,
        "s an update": float(np.mean([row["seconds"] for row in rows])),
        "bytes kept": int(np.mean([row["bytes_kept"] for row in last])),
    }


def _within(rates):
    return sum(HELD[0] <= rate <= HELD[1] for rate in rates)


def by_task(measured, arms, names, value):
    """Return a line for each arm: `value(run)` (N,), averaged over its seeds, by task's name."""
    lines = []
    for arm in arms:
        values = [value(run) for run in runs_of_arm(measured, arm)]
        if values and values[0] is not None:
            means = np.mean(values, axis=0)
            lines.append({"arm": arm, **dict(zip(map(str, names), map(float, means), strict=True))})
    return lines


def by_policy(measured, arms):
    """Return a line for each arm: the pooled and the worst task's held rate of every policy, %."""
    lines = []
    for arm in arms:
        last = [run["tasks"][-1] for run in runs_of_arm(measured, arm)]
        if not last or not last[0]["alarms"]:
            continue
        line = {"arm": arm}
        for policy in last[0]["alarms"]:
            worst = np.mean([row["alarms"][policy] for row in last], axis=0).max()
            line[f"{policy} %"] = spread((100 * row["pooled"][policy] for row in last), 2)
            line[f"{policy}, worst task %"] = 100 * float(worst)
        lines.append(line)
    return lines


def false_alarms_by_task(run):
    """Return each task's false alarms after the last task, in %; None without a threshold."""
    alarms = run["tasks"][-1]["alarms"]
    return [100 * rate for rate in alarms["fpr"]] if alarms else None


def further_tables(measured, arms, names):
    """Return the tables by task and by policy, by their titles."""
    tables = {
        "Forgetting of each task (max_i R_ij - R_Nj)": by_task(
            measured, arms, names, lambda run: forgetting(np.array(run["R"]))
        ),
        f"Held % of each task after the last one, at {TARGET:.0%} asked": by_task(
            measured, arms, names, false_alarms_by_task
        ),
        f"Held % by threshold policy, all at {TARGET:.0%} asked": by_policy(measured, arms),
    }
    return {title: lines for title, lines in tables.items() if lines}


def bench(name, about, job, names, arms=ARMS, more=None):
    """Run a continual benchmark from the command line: runs, tables, JSON and a picture.

    `job(args)` returns a function of (arm, seed) that makes one run. `names` are the names of the
    tasks. `more(parser)` adds options, all of which a run depends on.
    """
    parser = runs.arguments(arguments(about), arms)
    common = vars(parser.parse_args([])).keys()
    if more:
        more(parser)
    args = parser.parse_args()
    options = {key: value for key, value in vars(args).items() if key not in common}
    keys = [(arm, seed) for seed in range(args.seeds) for arm in args.arms]
    kept = runs.Runs.of(args, **options)
    measured = kept.run(job(args), keys, description)
    present = [arm for arm in args.arms if runs_of_arm(measured, arm)]
    lines = [summary(arm, runs_of_arm(measured, arm)) for arm in present]
    lives = runs.with_keys(("arm", "seed"), measured)
    further = further_tables(measured, present, names)
    report(name, lines, args.output, further, lives=lives, options=options)
    if args.output:
        print(f"\nFrom {kept.states(keys)} state(s) of the code.")
        two_curves(measured, present, names, args.output.with_suffix(".png"))
    return args, kept, measured
