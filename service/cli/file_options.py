"""Options of the commands that read a file of rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.cli.text_table import Options

File = Annotated[
    Path,
    typer.Argument(
        help="CSV or lines of JSON (compressed by gzip or not), .npy or .parquet; - reads standard "
        "input.",
        metavar="FILE",
    ),
]
Files = Annotated[
    list[Path],
    typer.Argument(help="Files as `score` reads them, the oldest first.", metavar="FILE..."),
]
Detector = Annotated[str, typer.Option("--detector", "-d", help="The detector.")]
Time = Annotated[
    str | None, typer.Option(help="Column with the time of each row. DATE,CLOCK takes two columns.")
]
Source = Annotated[str | None, typer.Option(help="Column with the source of each row.")]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Column whose values each have a detector of their own, DETECTOR:VALUE."),
]
Drop = Annotated[
    list[str] | None, typer.Option(help="Column to leave out; may be repeated, or a,b.")
]
Category = Annotated[
    list[str] | None,
    typer.Option(
        help="Column whose numbers are codes, for a new detector; may be repeated, or a,b."
    ),
]
Pivot = Annotated[
    str | None,
    typer.Option(
        help="Column that names what the one value of a row measures. Each name becomes a column."
    ),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        help="How times are written, such as '%d.%m.%Y %H:%M'; `excel` for a spreadsheet's days."
    ),
]
Timezone = Annotated[str, typer.Option(help="Zone of times that name none: Europe/Berlin.")]


def options_of(
    time: str | None,
    source: str | None,
    drop: list[str] | None,
    time_format: str | None,
    zone: str,
    pivot: str | None = None,
) -> "Options":
    """Return the options about the columns of a file."""
    from service.cli.text_table import Options

    return Options(time, source, listed(drop), time_format, zone, pivot)


def listed(option: list[str] | None) -> tuple[str, ...]:
    """Return the names that an option has, which may be repeated and may have commas."""
    return tuple(name for given in option or () for name in given.split(",") if name)
