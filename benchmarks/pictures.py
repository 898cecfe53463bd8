"""What the benchmarks draw: curves over tasks, and grids of images."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks.learners import TARGET
from benchmarks.runs import runs_of_arm


def two_curves(measured, arms, names, path):
    """Draw AUROC over the tasks, mean and range over seeds, and every task's final held rate."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = range(1, len(names) + 1)
    for i, arm in enumerate(arms):
        runs = [run["tasks"] for run in runs_of_arm(measured, arm)]
        style = {"marker": "o", "markersize": 3, "linestyle": ("-", "--", ":")[i // 10 % 3],
                 "color": f"C{i % 10}"}  # fmt: skip
        curves = np.array([[row["auroc"] for row in rows] for rows in runs])
        left.plot(places, curves.mean(axis=0), label=arm, **style)
        left.fill_between(places, curves.min(axis=0), curves.max(axis=0), alpha=0.12,
                          color=style["color"])  # fmt: skip
        if runs[0][-1]["alarms"]:
            rates = 100 * np.mean([rows[-1]["alarms"]["fpr"] for rows in runs], axis=0)
            right.plot(places, rates, **style)
    left.set(xlabel="newest task learned", ylabel="AUROC over all tasks learned",
             title="Detection (mean and range over seeds)")  # fmt: skip
    right.axhline(100 * TARGET, color="black", linewidth=0.8, linestyle="--")
    right.set(xlabel="task", ylabel="false alarms, % (logarithmic above 2)",
              title="Held % after the last task (asked rate dashed)")  # fmt: skip
    right.set_yscale("symlog", linthresh=2)
    right.set_ylim(bottom=-0.1)
    right.set_yticks([0, 1, 2, 5, 10, 30, 100], ["0", "1", "2", "5", "10", "30", "100"])
    for axes in (left, right):
        axes.set_xticks(places, names, rotation=0 if len(str(names[0])) < 4 else 20)
    left.legend(loc="lower left", fontsize="x-small", ncols=3)
    figure.savefig(path, dpi=120)


def grids(panels, width, path):
    """Draw panels of images side by side: {title: (rows, columns, pixels)}, pixels in 0..1."""
    figure = Figure(figsize=(2.3 * len(panels), 2.4), layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        rows, columns, pixels = images.shape
        tall = pixels // width
        sheet = images.reshape(rows, columns, tall, width).transpose(0, 2, 1, 3)
        axes.imshow(1 - sheet.reshape(rows * tall, columns * width), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=7)
        axes.set_yticks(tall * (np.arange(rows) + 0.5), range(1, rows + 1), fontsize=5)
        axes.set_xticks([])
    figure.savefig(path, dpi=160)
