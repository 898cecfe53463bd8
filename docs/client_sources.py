"""The types of answers and configs for clients, which `make docs` writes with the pages.

They follow from the component schemas of the OpenAPI document.
"""  # noqa: INP001 - a script beside the pages, not a package

import json
import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parents[1] / "service" / "client"

_SCALARS = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
}
_ANSWERS = '''"""What a service answers, as types. `make docs` writes this from OpenAPI."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
'''


def files(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield each file that the document determines, with its text."""
    schemas = document["components"]["schemas"]
    of_config = parts("DetectorConfig", schemas)
    answered = {inner for name in _read_types() for inner in parts(name, schemas)}
    own_schemas = {name: schemas[name] for name in schemas if name in answered - {*of_config}}
    configs = answers({name: schemas[name] for name in of_config})
    yield CLIENT / "configs.py", configs.replace("What a service answers", "Configs", 1)
    yield (
        CLIENT / "answers.py",
        answers(own_schemas, "from service.client.configs import Context, DetectorConfig"),
    )


def _read_types() -> set[str]:
    """Return the types of the answers that the client's calls read."""
    sources = (path.read_text() for path in CLIENT.glob("*.py") if path.name != "answers.py")
    read = r"\b(?:as_json\(|listed\(\"\w+\", )(\w+)\)"
    return {name for source in sources for name in re.findall(read, source)} - {"kind"}


def parts(name: str, schemas: Mapping[str, Any]) -> list[str]:
    """Return the names of a schema and of all that it is made of."""
    names = {name}
    for inner in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schemas[name])):
        names |= set(parts(inner, schemas))
    return sorted(names)


def answers(schemas: Mapping[str, Any], imports: str = "") -> str:
    """Return a module with one TypedDict for each component schema."""
    texts = [f"{_ANSWERS}\n{imports}\n"]
    for name, schema in schemas.items():
        required = schema.get("required", ())
        fields = {
            field: _type(of) if field in required else f"NotRequired[{_type(of)}]"
            for field, of in schema.get("properties", {}).items()
        }
        if any(keyword.iskeyword(field) for field in fields):
            pairs = ", ".join(f'"{field}": {kind}' for field, kind in fields.items())
            texts.append(f'{name} = TypedDict("{name}", {{{pairs}}})\n')
            continue
        lines = [f"class {name}(TypedDict):", f'    """{_sentence(schema, name)}"""']
        lines += [""] * bool(fields)
        lines += [f"    {field}: {kind}" for field, kind in fields.items()]
        texts.append("\n".join(lines) + "\n")
    return "\n\n".join(texts)


def _sentence(schema: Mapping[str, Any], name: str) -> str:
    first = " ".join(schema.get("description", name).split()).split(". ")[0].split("; ")[0]
    return textwrap.shorten(first.rstrip("."), 89, placeholder=" ...").rstrip(".") + "."


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _type(schema: Mapping[str, Any]) -> str:
    choices = schema.get("anyOf") or schema.get("oneOf")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    kind = str(schema.get("type"))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if values:
        return f"Literal[{', '.join(map(_literal, values))}]"
    if choices:
        return " | ".join(dict.fromkeys(_type(choice) for choice in choices))
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    holder = {"array": "list[{}]", "object": "dict[str, {}]"}.get(kind)
    return holder.format(_type(inner or {})) if holder else _SCALARS.get(kind, "Any")
