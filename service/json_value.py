"""The type of what JSON can carry, for documents whose fields are not known beforehand."""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    JsonValue: TypeAlias = (
        bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
    )
else:
    JsonValue = Any  # msgspec reads annotations and cannot resolve a recursive type
JsonObject: TypeAlias = dict[str, JsonValue]
