"""Learn a curve in three pieces with four ways to weigh the past, and compare what is kept.

A noisy sinusoid arrives in three pieces: the middle, the left, the right. Every piece is learned
by generative replay: earlier pieces are drawn from the previous version, not stored. The weights
are (w_prev, w_new). With (0.5, 0.5) the weight of a piece halves with each later piece. With
(n_prev/n, n_new/n) all pieces weigh the same. (0.2, 0.8) forgets on purpose. (0.8, 0.2) learns new
pieces slowly. The picture has a column for each pair of weights: the learned density after every
piece, and the line beyond which the detector alarms.

    python examples/sinusoid.py --output sinusoid.png
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from models import Config, Model, Version, train

PIECES = {"middle": 1, "left": 0, "right": 2}  # in the order of arrival; which third it is
NOISE = 0.12
WEIGHTS = {
    "(0.5, 0.5)": "equal",
    "(n_prev/n, n_new/n)": "proportional",
    "(0.2, 0.8)": {"w_prev": 0.2, "w_new": 0.8},
    "(0.8, 0.2)": {"w_prev": 0.8, "w_new": 0.2},
}
BOX = (-0.6, 2 * math.pi + 0.6, -2.2, 2.2)  # left, right, bottom, top of the picture


def piece(index: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n points (n, 2) of the curve's third `index`, counted from the left."""
    x = 2 * math.pi * (index + rng.random(n)) / len(PIECES)
    return np.stack([x, np.sin(x) + NOISE * rng.standard_normal(n)], axis=1).astype(np.float32)


def outliers(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n points (n, 2) that are at least six deviations off the curve."""
    x = 2 * math.pi * rng.random(n)
    away = rng.choice([-1, 1], n) * rng.uniform(6 * NOISE, 1.5, n)
    return np.stack([x, np.sin(x) + away], axis=1).astype(np.float32)


def learn(
    pieces: Sequence[np.ndarray], weights: str | dict[str, float], model: Any
) -> list[Version]:
    """Return the version after each piece."""
    config = Config(weights=weights, model=model, score="elbo")  # a score that is a density
    versions = []
    for vectors in pieces:
        versions.append(train(versions[-1] if versions else None, vectors, config))
    return versions


def measure(name: str, version: Version, rng: np.random.Generator) -> dict[str, Any]:
    """Return one row of the table, in %: what the last version draws, and what it alarms on."""
    samples = version.sample(4_000, seed=1)
    shares = np.histogram(samples[:, 0], bins=len(PIECES), range=(0, 2 * math.pi))[0] / len(samples)
    row = {"weights": name}
    for place, i in PIECES.items():
        row[f"{place} drawn"] = 100 * shares[i]
    for place, i in PIECES.items():
        row[f"{place} alarms"] = 100 * version.is_anomaly(piece(i, 2_000, rng)).mean()
    row["outliers found"] = 100 * version.is_anomaly(outliers(2_000, rng)).mean()
    return row


def draw(lives: dict[str, list[Version]], pieces: Sequence[np.ndarray], path: Path) -> None:
    """Save a picture with a column for each pair of weights and a row for each learned piece."""
    figure = Figure(figsize=(3.3 * len(lives), 2.2 * len(PIECES) + 0.5), layout="constrained")
    grid = figure.subplots(len(PIECES), len(lives), sharex=True, sharey=True, squeeze=False)
    left, right, bottom, top = BOX
    xs, ys = np.linspace(left, right, 220), np.linspace(bottom, top, 140)
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    for column, (name, versions) in enumerate(lives.items()):
        for row, version in enumerate(versions):
            axes = grid[row, column]
            score = version.score(points).reshape(len(ys), len(xs))
            image = axes.imshow(
                -score, extent=BOX, origin="lower", aspect="auto", cmap="magma", vmin=-9, vmax=-1
            )
            axes.contour(xs, ys, score, levels=[version.threshold], colors="cyan", linewidths=1)
            seen = np.concatenate(pieces[: row + 1])[::4]
            axes.plot(*seen.T, ".", color="white", markersize=1, alpha=0.5)
            if row == 0:
                axes.set_title(f"w = {name}")
            if column == 0:
                axes.set_ylabel(f"+ {list(PIECES)[row]}" if row else f"{next(iter(PIECES))} alone")
    bar = figure.colorbar(image, ax=grid, shrink=0.6, pad=0.01, extend="min")
    bar.set_label("learned log density (minus the score, nats)")
    figure.suptitle("A sinusoid learned in pieces: density, and the line of alarms (cyan)")
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the example and return the rows of its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("sinusoid.png"))
    parser.add_argument("--quick", action="store_true", help="a smaller, rougher run")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a small network is slower with more threads
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    n, model = (120, Model(epochs=60)) if args.quick else (450, "auto")
    pieces = [piece(i, n, rng) for i in PIECES.values()]
    lives = {name: learn(pieces, weights, model) for name, weights in WEIGHTS.items()}
    rows = [measure(name, versions[-1], rng) for name, versions in lives.items()]
    print("After the last piece, in %: share of draws, false alarms (target 1), outliers found\n")
    print("  ".join(f"{key:>19}" if key == "weights" else f"{key:>8}" for key in rows[0]))
    for row in rows:
        print("  ".join(f"{v:>19}" if isinstance(v, str) else f"{v:8.1f}" for v in row.values()))
    draw(lives, pieces, args.output)
    print(f"\nsaved {args.output}, took {time.perf_counter() - start:.0f} s")
    return rows


if __name__ == "__main__":
    main()
