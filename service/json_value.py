"""The type of what JSON can carry, for documents whose fields are not known beforehand."""

from typing import TypeAlias

JsonValue: TypeAlias = (
    "bool | int | float | str | list[JsonValue] | tuple[JsonValue, ...] | JsonObject | None"
)
JsonObject: TypeAlias = "dict[str, JsonValue]"
