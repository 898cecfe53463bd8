"""Options that several commands share."""

from typing import Annotated

import typer

Url = Annotated[
    str,
    typer.Option(
        help="URL of the service (default: ANAMNESIS_URL, or a service on this machine).",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]

Name = Annotated[str, typer.Argument(help="The detector.", metavar="DETECTOR")]

Key = Annotated[
    str | None,
    typer.Option("--key", help="API key. Others may see it: prefer ANAMNESIS_KEY or a key file."),
]

DEFAULT_URL = ""  # an empty URL means the one in the settings
