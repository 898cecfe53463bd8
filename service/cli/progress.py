"""Shows a command's progress on stderr: a bar in a terminal, else a line every few seconds."""

import sys
import time
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_EVERY_SECONDS = 5.0  # between two lines
_LEAST_SHARE = 0.01  # with less done, an estimate of the time left may be wrong a hundredfold


class ShownProgress:
    """Shows the share of the work that is done, and how long the rest will take."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._began = self._shown_at = self._working_since = time.monotonic()
        self._before = 0.0  # the share that an earlier command has done
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(doing, total=1.0)

    def at(self, share: float | None, rows: int | None = None, waits: str = "") -> None:
        """Show that the share (0 to 1) is done. If it is not known, show the number of rows.

        `waits` says why nothing is done yet; the time left is estimated without that time.
        """
        if waits:
            self._working_since = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=share or 0.0, description=self._doing + waits)
            return
        now = time.monotonic()
        if now - self._shown_at >= _EVERY_SECONDS:
            self._shown_at = now
            left = self._left(share, rows, now)
            typer.echo(f"{self._doing}: {left}{waits}", err=True)

    def skip(self, share: float | None, rows: int) -> None:
        """Show that an earlier command has done the share. It says nothing about the time left."""
        self._before = share or 0.0
        self.at(share, rows, ", done before")

    def _left(self, share: float | None, rows: int | None, now: float) -> str:
        if not share:
            return f"{now - self._began:.0f} s" if rows is None else f"{rows} rows"
        done, seconds = share - self._before, now - self._working_since
        left = f", {seconds * (1 - share) / done:.0f} s left" if done >= _LEAST_SHARE else ""
        return f"{100 * share:.0f} %{left}"

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
