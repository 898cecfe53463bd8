"""The command `backtest`: shows how a detector would have done on a history."""

import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import console
from service.cli.file_options import (
    Category,
    Pivot,
    Source,
    TimeFormat,
    Timezone,
    listed,
    options_of,
)
from service.cli.options import AsJson

if TYPE_CHECKING:
    from models import Config
    from models.backtest import BacktestResult
    from models.context import Context
    from service.cli.history_files import FileHistory

_HELP = {
    "time": "Column with the time of each row, by name or number from 1.",
    "label": "Column of labels: 1 for a known anomaly. They are scored and never learned.",
    "drop": "A column that is not a feature, by name or number from 1; may be repeated.",
    "first": "Rows that are learned before scoring begins (a fifth, at most a million).",
    "batch": "Rows of a batch, scored and then learned (a tenth of the rest, at most a million).",
    "strategy": "A strategy as in a detector's config (replay); may be repeated.",
    "weights": "Weights as in a config (JSON), w_new as a number, or half_life=3; may be repeated.",
    "no_context": "Judge each row by itself, without the rows before it.",
    "impute": "Has no effect: rows with blank cells are always scored and learned.",
    "fpr": "Rate of false alarms to hold.",
    "score": "A score as in a detector's config.",
    "seed": "Seed of every training.",
    "plot": "Write a picture to this PNG file; needs matplotlib.",
}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(backtest)


def backtest(
    file: Annotated[
        Path, typer.Argument(help="CSV, .npy, .npz or .parquet, oldest row first.", metavar="FILE")
    ],
    time_column: Annotated[str | None, typer.Option("--time", help=_HELP["time"])] = None,
    source: Source = None,
    pivot: Pivot = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    label: Annotated[str | None, typer.Option(help=_HELP["label"])] = None,
    drop: Annotated[list[str] | None, typer.Option(help=_HELP["drop"])] = None,
    category: Category = None,
    first: Annotated[int | None, typer.Option(min=1, help=_HELP["first"])] = None,
    batch: Annotated[int | None, typer.Option(min=1, help=_HELP["batch"])] = None,
    strategy: Annotated[list[str] | None, typer.Option(help=_HELP["strategy"])] = None,
    weights: Annotated[list[str] | None, typer.Option(help=_HELP["weights"])] = None,
    no_context: Annotated[bool, typer.Option("--no-context", help=_HELP["no_context"])] = False,
    impute: Annotated[bool, typer.Option("--impute", help=_HELP["impute"])] = True,
    fpr: Annotated[float, typer.Option(help=_HELP["fpr"])] = 0.01,
    score: Annotated[str, typer.Option(help=_HELP["score"])] = "auto",
    seed: Annotated[int, typer.Option(min=0, help=_HELP["seed"])] = 0,
    plot: Annotated[Path | None, typer.Option(help=_HELP["plot"])] = None,
    as_json: AsJson = False,
) -> None:
    """Go through a history offline: score each batch, then learn it. It needs no service."""
    from service.cli import backtest_report, history_files

    del impute
    common = {"threshold": {"fpr": fpr}, "score": score, "missing": "impute"}
    configs = _configs(strategy or ["replay"], weights or ["proportional", "equal"], common)
    if plot is not None:
        backtest_report.need_matplotlib()
    began = time.monotonic()
    options = options_of(time_column, source, drop, time_format, timezone, pivot)
    options = replace(options, categories=listed(category))
    recorded, context = history_files.read(file, options, label), None
    if recorded.times is not None and not no_context:
        recorded, context = _with_context(recorded, first, timezone)
    configs = {
        name: replace(config, columns=recorded.columns, context=context, seed=seed)
        for name, config in configs.items()
    }
    lifetimes = _lifetimes(file, recorded, configs, (first, batch))
    report = backtest_report.Report(
        str(file),
        recorded,
        tuple(lifetimes),
        time.monotonic() - began,
        fpr,
        options.clock().zone,
        context,
    )
    if plot is not None:
        backtest_report.draw(report, plot)
    if as_json:
        console.show_json(report.to_dict())
    else:
        report.show()


def _with_context(
    recorded: "FileHistory", first: int | None, timezone: str
) -> "tuple[FileHistory, Context | None]":
    """Choose a context as `learn` would, and return the history of its features and the context.

    If no context helps, the history stays as it is. A person is told why.
    """
    from models.backtest import first_window
    from service.cli import history_context

    rows = len(recorded.vectors)
    context, why = history_context.chosen_context(recorded, first_window(rows, first), timezone)
    console.complain(why)
    if context is None:
        return recorded, None
    derived = history_context.with_context(recorded, context)
    console.complain(
        f"{rows - len(derived.vectors):,} of {rows:,} rows are left out: they have too few rows "
        "before them, or are not newer than the row before"
    )
    return derived, context


def _configs(
    strategies: list[str], weights: list[str], common: dict[str, Any]
) -> "dict[str, Config]":
    """Return the configs to compare, by name. Raises a usage error for a bad config."""
    from models import AnamnesisError, Config

    try:
        return {
            f"{strategy}, {given}": Config(strategy=strategy, weights=_weights(given), **common)
            for strategy, given in product(strategies, weights)
        }
    except AnamnesisError as error:
        raise typer.BadParameter(str(error)) from None


def _weights(given: str) -> str | dict[str, float]:
    name, _, value = given.partition("=")
    try:
        if given.startswith("{"):
            weights: dict[str, float] = json.loads(given)
            return weights
        if name == "half_life":
            return {"half_life": float(value)}
        w_new = float(given)
    except ValueError:
        return given
    return {"w_prev": 1.0 - w_new, "w_new": w_new}


def _lifetimes(
    file: Path,
    recorded: "FileHistory",
    configs: "dict[str, Config]",
    sizes: tuple[int | None, int | None],
) -> "list[BacktestResult]":
    """Go through the history once for each config. Progress is written to stderr."""
    import torch  # imported here, so that other commands start faster

    from models import AnamnesisError
    from models.backtest import History, backtest, split_history
    from models.progress import finish
    from service.cli.progress import ShownProgress
    from service.cli.table_files import BadTable

    torch.set_num_threads(1)  # the networks are small, so one thread is fastest
    past = History(recorded.vectors, recorded.anomalous)
    lifetimes = []
    try:
        parts = split_history(len(recorded.vectors), *sizes)
        for name, config in configs.items():
            steps = backtest(name, past, parts, config)
            with ShownProgress(name) as progress:
                lifetimes.append(finish(steps, progress.at))
    except AnamnesisError as error:
        raise BadTable(f"{file}: {error}") from None
    return lifetimes
