"""What the commands share: exit codes for scripts, tables for people, JSON for both."""

import contextlib
import json
import sys
from collections.abc import Generator, Iterable, Sequence
from enum import IntEnum
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.cli.table_files import BadTable
from service.client.client import Client, ServiceError, Unreachable, Unusable
from service.processes.data_directory import StoreFailed
from service.processes.supervisor import StartupFailed
from service.settings import BadSettings, Settings, variable


class Exit(IntEnum):
    """Exit statuses of every command."""

    OK = 0
    REFUSED = 1  # the service said no, or did not come up
    USAGE = 2  # the command line or the file given cannot be used
    UNREACHABLE = 3  # no service answers at the URL
    ANOMALY = 4  # `score --fail-on-anomaly` found one
    ATTENTION = 5  # `status`: something needs a person


def complain(message: str) -> None:
    """Write one line to stderr."""
    typer.echo(f"anamnesis: {message}", err=True)


@contextlib.contextmanager
def exit_codes() -> Generator[None, None, None]:
    """Turn the errors that a command may meet into their message and exit status."""
    try:
        yield
    except Unreachable as error:
        _end(Exit.UNREACHABLE, f"{error} (start one: `anamnesis up`)")
    except (BadSettings, Unusable) as error:
        _end(Exit.USAGE, str(error))
    except (ServiceError, StoreFailed, StartupFailed) as error:
        _end(Exit.REFUSED, str(error))
    except BadTable as error:
        _end(Exit.USAGE, str(error))
    except BrokenPipeError:
        raise  # typer knows what to do
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _end(Exit.USAGE, f"{named}{error.strerror or error}")


def _end(status: Exit, message: str) -> None:
    complain(message)
    sys.exit(status)


def settings(**given: Any) -> Settings:
    """Return the settings, what was given on the command line first.

    Raises BadSettings, which names the setting and repeats nothing of its value.
    """
    try:
        found = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        words = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{variable(name)}: {words}" if name else words) from None
    found.store_url()
    return found


def client(url: str, key: str | None = None) -> Client:
    """Return a client with the API key that was given, or that the settings name, if any."""
    found = settings()
    return Client(url, key=key or _key(found), ca_file=found.ca_file)


def _key(found: Settings) -> str | None:
    if found.key is not None:
        return found.key
    # Whoever may read the key that the processes were given may use it.
    file = found.key_file or found.admin_key_file
    if file is None:
        return None
    return found.text("admin_key_file" if found.key_file is None else "key_file")


def show_json(value: Any) -> None:
    """Write one JSON value to stdout, on one line."""
    typer.echo(json.dumps(value))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to stdout; None is shown as a dash."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    Console(soft_wrap=True).print(table)


def progress() -> Progress:
    """Return a progress bar on stderr, shown only to a person and gone when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
