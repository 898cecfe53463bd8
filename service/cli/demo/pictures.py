"""Pictures of the demonstration: AUROC over the tasks, and vectors of each version's generator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.cli.demo.table import Row

SAMPLES = 16  # vectors drawn from each version
_SIDE = 8  # pixels; a digit is 8x8
_COLOURS = {"replay": "tab:blue", "finetune": "tab:orange"}


def save(rows: Sequence[Row], output: Path) -> list[Path]:
    """Write the pictures to `output` and return their paths. Without matplotlib there are none."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("agg")
    arms = list(dict.fromkeys(row.arm for row in rows))
    return [_auroc(rows, arms, output / "auroc.png")] + [
        _samples([row for row in rows if row.arm == arm], output / f"samples-{arm}.png")
        for arm in arms
    ]


def _auroc(rows: Sequence[Row], arms: Sequence[str], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for arm in arms:
        line = [(row.digit, row.auroc) for row in rows if row.arm == arm]
        axes.plot(*zip(*line, strict=True), marker="o", label=arm, color=_COLOURS.get(arm))
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="newest digit learned",
        ylabel="AUROC of digit 0 against all learned",
        title="Digits 1 to 9, learned one after another",
        ylim=(0.0, 1.02),
    )
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=120)
    return path


def _samples(rows: Sequence[Row], path: Path) -> Path:
    """Draw one line of pictures for each version: `SAMPLES` vectors from its generator."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.5 * SAMPLES + 1, 0.5 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots()
    # Each vector is an image with a white frame of one pixel.
    lines = [
        np.hstack([np.pad(sample.reshape(_SIDE, _SIDE), 1) for sample in row.samples])
        for row in rows
    ]
    axes.imshow(np.vstack(lines), cmap="gray_r", vmin=0, vmax=16)
    axes.set_yticks(
        [(i + 0.5) * (_SIDE + 2) - 0.5 for i in range(len(rows))],
        [f"after {row.digit}" for row in rows],
    )
    axes.set_xticks([])
    axes.set_title(f"{rows[0].arm}: what the generator draws")
    figure.savefig(path, dpi=120)
    return path
