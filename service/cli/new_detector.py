"""Makes the config of a new detector for a file: columns, missing values and context."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from models.columns import quoted
from models.context_choice import choose
from service.cli.sheet import Sheet, newest_first
from service.cli.table_files import BadTable
from service.cli.text_table import Chunk
from service.json_value import JsonObject

if TYPE_CHECKING:
    from service.client import Client


def config_for(sheet: Sheet, timezone: str) -> tuple[JsonObject, list[str]]:
    """Return a config for the columns of `sheet`, and notes about it for a person.

    Raises BadTable if no column can be learned, or if the newest rows come first.
    """
    if sheet.guessed is None or sheet.first is None:
        return {}, []
    guessed, notes = sheet.guessed, list(sheet.guessed.notes)
    if not guessed.columns:
        line, row = sheet.first.lines[0], sheet.first.rows[0]
        raise BadTable(f"{sheet.file}: no column holds numbers; line {line} is {quoted(row)}")
    config: JsonObject = {
        "columns": [{"name": name, "type": kind} for name, kind in guessed.columns]
    }
    notes.append(f"columns: {guessed.shown()}")
    if guessed.blanks:
        config["missing"] = "impute"
        notes.append("some cells are blank: rows are judged on what was observed")
    if sheet.first.times is not None:
        if newest_first(sheet.first):
            raise BadTable(f"{sheet.file}: the newest rows come first; sort it by time")
        context, why = _context(sheet.first, dict(guessed.columns), timezone)
        config["context"] = context
        notes.append(why)
    return config, notes


def _context(chunk: Chunk, columns: dict[str, str], timezone: str) -> tuple[JsonObject | None, str]:
    """Return a context for rows with times, or None if earlier rows tell little, and the reason."""
    X = chunk.matrix([(n, kind) for n, kind in columns.items() if kind == "number"], gaps=True)
    context, why = choose(X, chunk.times, chunk.sources, timezone)
    return None if context is None else asdict(context), why


def template_config(client: "Client", name: str, wanted: JsonObject) -> JsonObject:
    """Return the config of the template. A missing template is made with the config `wanted`."""
    from service.client import Refused

    held: Any
    try:
        held = client.template(name)
    except Refused as error:
        if error.status != 404:
            raise
        held = client.create_template(name, wanted)
    return dict(held)
