"""Two regimes in two dimensions: learn one, then the other, with and without replay.

The first regime is an arc, the second is a bar beside it. The example draws six pictures:

1. the density before training;
2. the density after the first regime;
3. the density after training on the second regime alone (`finetune`: the first one is forgotten);
4. the density after replay 1:1, which saw no data of the first regime and still knows both;
5. the latent space of that last version;
6. where anomalies lie, and which of them the last version finds.

    python examples/two_regimes.py --output two_regimes.png
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models import Config, Model, Version, train

BOX = (-3.7, 3.7, -2.8, 2.8)  # left, right, bottom, top of the picture
Points = dict[str, np.ndarray]  # by name, (n, 2) each

BLUE, ORANGE, RED = "tab:blue", "tab:orange", "tab:red"


def first_regime(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n points (n, 2) on an arc that opens downwards."""
    angle = math.pi * rng.random(n)
    arc = np.stack([1.3 * np.cos(angle) - 1.4, 1.6 * np.sin(angle)], axis=1)
    return (arc + 0.13 * rng.standard_normal((n, 2))).astype(np.float32)


def second_regime(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n points (n, 2) along a slanted bar to the right of the arc."""
    along = rng.uniform(-1.4, 1.4, n)
    bar = np.stack([1.9 + 0.5 * along, along - 0.7], axis=1)
    return (bar + 0.13 * rng.standard_normal((n, 2))).astype(np.float32)


def anomalies(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n points (n, 2) in the box that are more than half a unit away from both regimes."""
    left, right, bottom, top = BOX
    normal = np.concatenate([first_regime(2_000, rng), second_regime(2_000, rng)])
    points = rng.uniform((left, bottom), (right, top), (6 * n, 2)).astype(np.float32)
    away = [np.square(normal - point).sum(axis=1).min() > 0.25 for point in points]
    return points[away][:n]


def learn(n: int, model: Model, rng: np.random.Generator) -> dict[str, Version]:
    """Return the four versions by name, in the order of the pictures."""
    a, b = first_regime(n, rng), second_regime(n, rng)
    config = Config(model=model, score="elbo")  # a score that is a density
    untouched = replace(config, model=Model(epochs=1, learning_rate=1e-9))  # hardly trained
    once = train(None, a, config)
    return {
        "before training": train(None, a, untouched),
        "after the first regime": once,
        "the second alone (finetune)": train(once, b, replace(config, strategy="finetune")),
        "the second, replay 1:1": train(once, b, replace(config, weights="equal")),
    }


def measure(name: str, version: Version, test: Points) -> dict[str, Any]:
    """Return one row of the table: false alarms on each regime and anomalies found, %."""
    alarms = {key: 100 * version.is_anomaly(X).mean() for key, X in test.items()}
    return {"version": name, **alarms}


def draw(versions: dict[str, Version], test: Points, path: Path) -> None:
    """Save the six pictures."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.subplots(2, 3)
    shown = [grid[0, 0], grid[0, 1], grid[0, 2], grid[1, 0]]
    for axes, (name, version) in zip(shown, versions.items(), strict=True):
        score = border(axes, version, "cyan")
        image = axes.imshow(-score, extent=BOX, origin="lower", cmap="magma", vmin=-9, vmax=-1)
        axes.set_title(name)
        if name != "before training":
            axes.plot(*test["first"][:150].T, ".", color="white", markersize=2, alpha=0.6)
        if "second" in name:
            axes.plot(*test["second"][:150].T, ".", color="lime", markersize=2, alpha=0.6)
    bar = figure.colorbar(image, ax=grid[:, :1], location="left", shrink=0.6, extend="min")
    bar.set_label("learned log density (minus the score, nats)")
    replayed = versions["the second, replay 1:1"]
    latents(grid[1, 1], replayed, test)
    verdicts(grid[1, 2], replayed, test)
    figure.savefig(path, dpi=110)


def border(axes: Axes, version: Version, colour: str) -> np.ndarray:
    """Draw the line beyond which rows alarm; return the scores of the grid of points."""
    left, right, bottom, top = BOX
    xs, ys = np.linspace(left, right, 240), np.linspace(bottom, top, 180)
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    score = version.score(points).reshape(len(ys), len(xs))
    axes.contour(xs, ys, score, levels=[version.threshold], colors=colour, linewidths=1.2)
    axes.set(xlim=BOX[:2], ylim=BOX[2:], aspect="equal")
    return score


def latents(axes: Axes, version: Version, test: Points) -> None:
    """Draw the codes of both regimes and of the anomalies."""
    for (name, X), colour in zip(test.items(), (BLUE, ORANGE, RED), strict=True):
        mean, _ = version.network.encode(version.scaler.transform(X[:400]))
        axes.scatter(*mean.T[:2], s=5, color=colour, label=name, alpha=0.6)
    z = version.latents.sample(4_000, np.random.default_rng(0))
    bins = [np.linspace(*np.quantile(axis, (0.001, 0.999)), 40) for axis in z.T[:2]]
    counts, *edges = np.histogram2d(*z.T[:2], bins=bins)
    centres = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    levels = counts.max() * np.linspace(0.03, 1.0, 6)
    axes.contourf(*centres, counts.T, levels=levels, cmap="Greys", alpha=0.6, zorder=0)
    axes.set_title("latent space; grey: the density that replay draws from")
    axes.legend(loc="best", fontsize="small", markerscale=2)


def verdicts(axes: Axes, version: Version, test: Points) -> None:
    """Draw where the anomalies lie, and which of them the detector finds."""
    for name, colour in (("first", BLUE), ("second", ORANGE)):
        axes.scatter(*test[name][:300].T, s=5, color=colour, alpha=0.5)
    X = test["anomalies"][:300]
    outliers = version.is_anomaly(X)
    axes.scatter(*X[outliers].T, s=14, marker="x", color=RED, linewidths=0.8, label="found")
    axes.scatter(*X[~outliers].T, s=22, facecolors="none", edgecolors="black", label="missed")
    border(axes, version, "black")
    axes.set_title("where anomalies lie")
    axes.legend(loc="lower left", fontsize="small")


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the example and return the rows of its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("two_regimes.png"))
    parser.add_argument("--quick", action="store_true", help="a smaller, rougher run")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a small network is slower with more threads
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    n, epochs = (150, 250) if args.quick else (600, 300)
    versions = learn(n, Model(epochs=epochs), rng)
    test = {
        "first": first_regime(2_000, rng),
        "second": second_regime(2_000, rng),
        "anomalies": anomalies(1_000, rng),
    }
    rows = [measure(name, version, test) for name, version in versions.items()]
    print("Alarms, in %: on normal points of each regime (target 1) and on anomalies\n")
    print("  ".join(f"{key:>27}" if key == "version" else f"{key:>9}" for key in rows[0]))
    for row in rows:
        print("  ".join(f"{v:>27}" if isinstance(v, str) else f"{v:9.1f}" for v in row.values()))
    draw(versions, test, args.output)
    print(f"\nsaved {args.output}, took {time.perf_counter() - start:.0f} s")
    return rows


if __name__ == "__main__":
    main()
