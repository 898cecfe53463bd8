"""The result of a backtest, as text for people, as JSON for programs and as a picture."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from service.cli import console
from service.cli.history_files import FileHistory
from service.json_value import JsonObject

if TYPE_CHECKING:
    from models.backtest import BacktestResult, Batch
    from models.context import Context

_DAY = 86_400.0
_TIE = 0.005  # a difference in cost of at most this much counts as none


@dataclass(frozen=True, slots=True)
class Report:
    """The lifetimes of several configs on one history. The first one is the reference.

    Times are shown in `zone`. `context` derived the judged features from earlier rows too. It is
    None if each row was judged by itself.
    """

    file: str
    recorded: FileHistory
    lifetimes: "tuple[BacktestResult, ...]"
    seconds: float
    fpr: float
    zone: tzinfo = UTC
    context: "Context | None" = None

    @property
    def best(self) -> "BacktestResult":
        """The lifetime with the least cost. If several are about as good, the first of them."""
        least = min(lifetime.cost for lifetime in self.lifetimes)
        return next(lifetime for lifetime in self.lifetimes if lifetime.cost <= least + _TIE)

    def suggested(self) -> dict[str, Any]:
        """Return the settings of the best lifetime; the threshold keeps the asked rate."""
        best = self.best
        strategy, _, weights = best.name.partition(", ")
        fpr = self.fpr if best.held_as_asked else float(f"{min(max(best.fpr, 1e-6), 0.5):.1g}")
        context = None if self.context is None else asdict(self.context)
        return {
            "strategy": strategy, "weights": weights, "threshold": {"fpr": fpr}, "context": context
        }  # fmt: skip

    def alarms(self, start: int, stop: int, count: int) -> float:
        """Return the alarms per day, or per 1,000 rows if the history has no times."""
        times = self.recorded.times
        if times is None:
            return 1000 * count / (stop - start)
        # A row covers the time until the next row. For the last row that time is not known.
        last = times[stop] if stop < len(times) else times[-1]
        return count / max(float(last - times[start]) / _DAY, 1e-9)

    @property
    def unit(self) -> str:
        """The unit of `alarms`."""
        return "per 1,000" if self.recorded.times is None else "per day"

    def to_dict(self) -> JsonObject:
        """Return the report as a JSON object."""
        return {
            "file": self.file,
            "rows": len(self.recorded.vectors),
            "features": [column.name for column in self.recorded.columns],
            "from": self._when(0),
            "to": self._when(len(self.recorded.vectors) - 1),
            "lifetimes": [
                lifetime.to_dict() | {"alarms": self._overall(lifetime), "alarms_unit": self.unit}
                for lifetime in self.lifetimes
            ],
            "suggested": self.suggested(),
            "seconds": round(self.seconds, 1),
        }

    def _overall(self, lifetime: "BacktestResult") -> float:
        first, last = lifetime.batches[0], lifetime.batches[-1]
        return self.alarms(first.start, last.stop, sum(b.alarms for b in lifetime.batches))

    def _when(self, row: int) -> str | None:
        times = self.recorded.times
        if times is None:
            return None
        return datetime.fromtimestamp(float(times[row]), self.zone).strftime("%Y-%m-%d %H:%M")

    def show(self) -> None:
        """Write the report for a person to stdout."""
        n, best = len(self.recorded.vectors), self.best
        span = "" if self.recorded.times is None else f", {self._when(0)} to {self._when(n - 1)}"
        typer.echo(f"{self.file}: {n:,} vectors of {len(self.recorded.columns)} features{span}")
        first = best.batches[0].start
        typer.echo(
            f"{first:,} learned first, then {len(best.batches)} batches, each scored before it was "
            f"learned ({self.seconds:.0f} s)\n"
        )
        self._show_batches(best)
        if len(self.lifetimes) > 1:
            typer.echo("")
            self._show_arms()
        typer.echo("\n" + "\n".join(self.sentences()))

    def _show_batches(self, lifetime: "BacktestResult") -> None:
        typer.echo(f"{lifetime.name}")
        labelled = any(batch.auroc is not None for batch in lifetime.batches)
        columns = ("rows", *(("from",) if self.recorded.times is not None else ()))
        columns += ("alarms", self.unit, "false alarms", *(("AUROC",) if labelled else ()), "")
        console.show_table(columns, (self._cells(b, labelled) for b in lifetime.batches))

    def _cells(self, batch: "Batch", labelled: bool) -> list[str | None]:
        from models.backtest import NEW

        cells: list[str | None] = [f"{batch.start}..{batch.stop - 1}"]
        cells += [] if self.recorded.times is None else [str(self._when(batch.start))[5:]]
        cells += [str(batch.alarms), f"{self.alarms(batch.start, batch.stop, batch.alarms):.1f}"]
        cells.append(_percent(batch.rate))
        if labelled:
            cells.append(None if batch.auroc is None else f"{batch.auroc:.3f}")
        return [*cells, "something new" if batch.rate >= NEW else ""]

    def _show_arms(self) -> None:
        labelled = self.recorded.anomalous is not None
        columns = ("compared", f"alarms {self.unit}", "middle batch", "oldest window", "forgetting")
        rows = []
        for lifetime in self.lifetimes:
            middle = float(np.median([batch.rate for batch in lifetime.batches]))
            cells = [
                lifetime.name,
                f"{self._overall(lifetime):.1f}",
                _percent(middle),
                _percent(lifetime.end[0]),
            ]
            auroc = "-" if lifetime.auroc is None else f"{lifetime.auroc:.3f}"
            rows.append([*cells, _points(lifetime.forgetting), *([auroc] if labelled else [])])
        console.show_table((*columns, *(("AUROC",) if labelled else ())), rows)

    def sentences(self) -> list[str]:
        """Return the result in sentences."""
        best = self.best
        low, high = (_percent(end) for end in best.interval)
        lines = [
            f"False alarms: {_percent(best.held)} ({low} to {high}), {_percent(best.asked)} asked "
            f"for; {self._overall(best):.1f} alarms {self.unit} in all."
        ]
        if best.new:
            lines.append(
                f"Apart from that, {best.new} of {len(best.batches)} batches were something new: "
                "at least a fifth of their rows alarmed until they were learned. No threshold "
                "changes that."
            )
        lines.append(
            f"Forgetting: {_percent(best.end[0])} of the first window alarm at the end. When it "
            f"had been learned, {_percent(best.after[0])} did. Over all windows the difference is "
            f"{_points(best.forgetting)}. (Measured on rows that were never learned.)"
        )
        lines.append(f"Regimes known at the end: {best.regimes}.")
        suggested = self.suggested()
        why = (
            "keeps the asked rate"
            if best.held_as_asked
            else "would have kept the asked rate in the median batch"
        )
        lines.append(
            f'Suggested: strategy "{suggested["strategy"]}", weights {suggested["weights"]}, '
            f'threshold {{"fpr": {suggested["threshold"]["fpr"]:g}}} ({why}).'
        )
        if self.recorded.anomalous is None:
            lines.append("No row is labelled, so true anomalies count as false alarms here.")
        return lines


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _points(change: float) -> str:
    return f"{100 * change:+.1f} points"


def need_matplotlib() -> None:
    """Raise a usage error if matplotlib is missing, before anything is trained."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise typer.BadParameter("--plot needs matplotlib (pip install matplotlib)") from None
    mpl.use("agg")


def draw(report: Report, path: Path) -> None:
    """Write a PNG with the false alarms of each batch, and of each window at the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for lifetime in report.lifetimes:
        starts = range(1, len(lifetime.batches) + 1)
        left.plot(starts, [100 * b.rate for b in lifetime.batches], marker="o", label=lifetime.name)
        right.plot(range(len(lifetime.end)), [100 * rate for rate in lifetime.end], marker="o")
    for axes, title in (
        (left, "each batch, before it was learned"),
        (right, "each window, at the end"),
    ):
        axes.axhline(100 * report.fpr, color="grey", linestyle=":", label="asked for")
        axes.set(title=title, ylabel="false alarms, %", yscale="symlog", ylim=(0, 100))
    left.set_xlabel("batch")
    right.set_xlabel("window")
    left.legend()
    figure.savefig(path, dpi=120)
