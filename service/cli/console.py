"""Functions that the commands share: exit statuses, tables and JSON.

A command imports what it needs only when it runs, so that `--help` answers fast.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import typer

# The headings of a table, each with a field of an entry, such as `drift.state`, or a function.
Columns = Mapping[str, str | Callable[[Any], Any]]
_DEFAULT_WIDTH = 80  # columns, where neither a terminal nor COLUMNS says how many
_UNLIMITED = 100_000  # columns of a table that is not written to a terminal

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

    from service.client import Client
    from service.settings import Settings


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = 0
    REFUSED = 1  # the service refused the request, or did not start
    USAGE = 2  # the command line or the given file is not valid
    UNREACHABLE = 3  # no service answers at the URL
    ANOMALY = 4  # `score --fail-on-anomaly` found one
    ATTENTION = 5  # `status`: something needs a person


def complain(message: str) -> None:
    """Write one line to stderr."""
    lines = (printable(line) for line in f"anamnesis: {message}".split("\n"))
    typer.echo("\n".join(lines), err=True)


def hold_streams() -> None:
    """Open the null device in place of each standard stream that the caller has closed.

    Otherwise the next file or socket would get the number of that stream, and the command's
    messages would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
    # A stream that was closed when Python started is None.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115


@contextlib.contextmanager
def exit_codes() -> Generator[None, None, None]:
    """Turn the errors of a command into a message on stderr and an exit status."""
    try:
        yield
    except BrokenPipeError:
        raise  # typer knows what to do
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        complain(_message(error))
        sys.exit(status)


def _status(error: Exception) -> Exit | None:
    """Return the exit status for an error that a person can correct."""
    from service.cli.table_files import BadTable
    from service.client import ServiceError, Unreachable, Unusable
    from service.processes.data_directory import StoreFailed
    from service.processes.supervisor import StartupFailed
    from service.settings import BadSettings

    statuses: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
        ((Unreachable,), Exit.UNREACHABLE),
        ((BadSettings, Unusable, BadTable, OSError), Exit.USAGE),
        ((ServiceError, StoreFailed, StartupFailed), Exit.REFUSED),
    )
    return next((status for kinds, status in statuses if isinstance(error, kinds)), None)


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    hint = " (start one: `anamnesis up`)" if str(error).startswith("no service at") else ""
    if getattr(error, "status", None) == HTTPStatus.UNAUTHORIZED:
        hint = " (a command takes the key from ANAMNESIS_KEY, or from --key)"
    return f"{error}{hint}"


def settings(**given: Any) -> "Settings":
    """Return the settings. Values of the command line come before all others.

    Raises BadSettings, which names the setting and never repeats its value.
    """
    from pydantic import ValidationError

    from service.settings import BadSettings, Settings, variable

    try:
        checked = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{variable(name)}: {text}" if name else text) from None
    checked.store_url()
    return checked


def client(url: str, key: str | None = None) -> "Client":
    """Return a client with the given service URL and API key, or those of the settings."""
    from stamina.instrumentation import set_on_retry_hooks

    from service.client import Client

    set_on_retry_hooks([_report_retry])  # stamina's own hook writes a log entry for programmers
    settings_in_force = settings()
    for problem in settings_in_force.misspelt():
        complain(f"{problem}; it is ignored")
    return Client(
        url or settings_in_force.url,
        key=key or _key(settings_in_force),
        ca_file=settings_in_force.ca_file,
    )


def _report_retry(details: "RetryDetails") -> None:
    complain(f"{details.caused_by} Trying again in {details.wait_for:g} s.")


def _key(settings: "Settings") -> str | None:
    if settings.key is not None:
        return settings.key
    # A person who can read the key of the service's processes may use it.
    file = settings.key_file or settings.admin_key_file
    if file is None:
        return None
    return settings.text("admin_key_file" if settings.key_file is None else "key_file")


def show_json(value: Any) -> None:
    """Write one JSON value to stdout, on one line."""
    typer.echo(json.dumps(value))


def show_answer(answer: Any, line: str, *, as_json: bool) -> None:
    """Write the answer to a command to stdout: as one JSON value, or as a line for a person."""
    if as_json:
        show_json(answer)
    else:
        show(line)


def show_listed(entries: Sequence[Any], columns: Columns, *, as_json: bool) -> None:
    """Write what a command lists to stdout: as one JSON value, or as a table."""
    if as_json:
        show_json(entries)
    else:
        show_table(
            tuple(columns),
            ([_cell(entry, field) for field in columns.values()] for entry in entries),
        )


def _cell(entry: Any, field: str | Callable[[Any], Any]) -> Any:
    """Return a field of an entry, None if it is missing, or the result of the function `field`."""
    if callable(field):
        return field(entry)
    for name in field.split("."):
        entry = (entry or {}).get(name)
    return entry


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to stdout. None is shown as a dash, every other cell as plain text.

    No cell is cut, and the first column, which has the names and ids to copy, is not wrapped. In a
    file or a pipe, no column is wrapped: each row is one line.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(
        *map(escape, map(printable, columns)), box=None, pad_edge=False, header_style="bold"
    )
    for row in rows:
        # `Text` is not parsed as markup: a text from a request must not set colours or links.
        table.add_row(*(Text("-" if cell is None else printable(str(cell))) for cell in row))
    for column in table.columns:
        column.overflow = "fold"
    first = table.columns[0]
    first.no_wrap, first.min_width = True, max(map(cell_len, map(str, first.cells)), default=1)
    console = Console(soft_wrap=True)
    if not console.is_terminal and console.width == _DEFAULT_WIDTH:
        console.width = _UNLIMITED
    console.width = console.width or _DEFAULT_WIDTH  # COLUMNS=0 would leave nothing of the table
    console.print(table)


def show(text: str) -> None:
    """Write one line to stdout. Control characters in it are escaped."""
    typer.echo(printable(text))


def printable(text: str) -> str:
    """Return the text with control and invisible characters as escapes, safe for a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
