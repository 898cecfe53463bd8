"""Options that several commands share."""

from typing import Annotated

import typer

Url = Annotated[
    str,
    typer.Option(
        help="The service; without it that of ANAMNESIS_URL, or of this machine.",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]

Name = Annotated[str, typer.Argument(help="The detector.", metavar="DETECTOR")]

Key = Annotated[
    str | None,
    typer.Option("--key", help="API key; better ANAMNESIS_KEY or a file, which others cannot see."),
]

DEFAULT_URL = ""  # None: the settings name it
