"""Options that several commands share."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

Url = Annotated[
    str,
    typer.Option(
        help="URL of the service (default: ANAMNESIS_URL, or a service on this machine).",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]

Name = Annotated[str, typer.Argument(help="The detector, or -d DETECTOR.", metavar="DETECTOR")]

Why = Annotated[str, typer.Option("--why", help="The reason, for the record.")]

Key = Annotated[
    str | None,
    typer.Option("--key", help="API key. Others may see it: prefer ANAMNESIS_KEY or a key file."),
]

DEFAULT_URL = ""  # an empty URL means the one in the settings


class Commands(TyperGroup):
    """Commands that take the detector by its place, and also by `-d` as `score` does."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command's name, the command and its arguments, the detector first."""
        name, command, rest = super().resolve_command(ctx, args)
        parameters = command.params if command else ()
        places = [
            parameter.name for parameter in parameters if parameter.param_type_name == "argument"
        ]
        return name, command, detector_first(rest) if places[:1] == ["detector"] else rest


def detector_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the value of `-d` or `--detector` in front, without the option.

    >>> detector_first(["--json", "-d", "pump", "7"])
    ['pump', '--json', '7']
    """
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if equals and option == "--detector":
            return [value, *arguments[:place], *arguments[place + 1 :]]
        if argument in {"-d", "--detector"} and place + 1 < len(arguments):
            return [arguments[place + 1], *arguments[:place], *arguments[place + 2 :]]
    return list(arguments)
