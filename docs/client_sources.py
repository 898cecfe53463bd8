"""The parts of the client that follow from others: answer types, and the client that is awaited.

`make docs` writes them with the pages. `service/client/answers.py` follows from the component
schemas of the OpenAPI document; every module of `service/client/asynchronous/` from the module of
the same name one folder up.
"""  # noqa: INP001 - a script beside the pages, not a package

import json
import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parents[1] / "service" / "client"
AWAITED = (
    "connection",
    "vectors",
    "detectors",
    "versions",
    "incidents",
    "review",
    "administration",
    "client",
)

# Of the Open Inference Protocol, which has clients of its own.
_FOREIGN = (
    "IndexedModel", "InferenceAnswer", "InferenceError", "InferenceModel", "InferenceReady",
    "InferenceServer", "Tensor",
)  # fmt: skip

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
_NOTE = "\n\nWritten by `make docs` from the module of the same name one folder up.\n"

# What waiting in the caller's thread becomes where the caller awaits.
_TO_AWAITED = (
    (r"\bclass (Client|Connection)\b", r"class Async\1"),
    (r"\((Connection)\):", r"(Async\1):"),
    (r"^import (\w+)$", r"import \1"),
    (rf"service\.client\.({'|'.join(AWAITED)})\b", r"service.client.asynchronous.\1"),
    (r"import Connection\b", "import AsyncConnection"),
    (r"\n    def (?!__init__)(\w+)", r"\n    async def \1"),
    (r"\b__enter__\b", "__aenter__"),
    (r"\b__exit__\b", "__aexit__"),
    (r"httpx\.Client\b", "httpx.AsyncClient"),
    (r"httpx\.BaseTransport\b", "httpx.AsyncBaseTransport"),
    (r"(?<!await )self\.http\.request\(", "await self.http.request("),
    (r"self\.http\.close\(\)", "await self.http.aclose()"),
    (r"(?<!await )self\.(send|close)\(", r"await self.\1("),
    (r"\bfor attempt in stamina", "async for attempt in stamina"),
    (r"waited for in the caller's thread", "which the caller awaits"),
    (r"methods that wait for the answer", "methods to await"),
    (r"import Client\n", "import AsyncClient\n"),
    (r"with Client\(", "async with AsyncClient("),
    (r"\.\.\.     client\.", "...     await client."),
)


def files(document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield each file that follows, with its text."""
    schemas = document["components"]["schemas"]
    of_config = parts("DetectorConfig", schemas)
    own_schemas = {name: of for name, of in schemas.items() if name not in {*of_config, *_FOREIGN}}
    configs = answers({name: schemas[name] for name in of_config})
    yield CLIENT / "configs.py", configs.replace("What a service answers", "Configs", 1)
    yield (
        CLIENT / "answers.py",
        answers(own_schemas, "from service.client.configs import Context, DetectorConfig"),
    )
    for name in AWAITED:
        source = (CLIENT / f"{name}.py").read_text()
        yield CLIENT / "asynchronous" / f"{name}.py", awaited(source)


def parts(name: str, schemas: Mapping[str, Any]) -> list[str]:
    """Return the names of a schema and of all that it is made of."""
    names = {name}
    for inner in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schemas[name])):
        names |= set(parts(inner, schemas))
    return sorted(names)


def awaited(source: str) -> str:
    """Return the module for callers that await."""
    for pattern, replacement in _TO_AWAITED:
        source = re.sub(pattern, replacement, source)
    first, _, rest = source.partition('"""\n')
    return f'{first}{_NOTE}"""\n{rest}'


def answers(schemas: Mapping[str, Any], imports: str = "") -> str:
    """Return a module with one TypedDict for each component schema."""
    modules = [f"{_ANSWERS}\n{imports}\n"]
    for name, schema in schemas.items():
        required = schema.get("required", ())
        fields = {
            field: _type(of) if field in required else f"NotRequired[{_type(of)}]"
            for field, of in schema.get("properties", {}).items()
        }
        if any(keyword.iskeyword(field) for field in fields):
            pairs = ", ".join(f'"{field}": {kind}' for field, kind in fields.items())
            modules.append(f'{name} = TypedDict("{name}", {{{pairs}}})\n')
            continue
        lines = [f"class {name}(TypedDict):", f'    """{_sentence(schema, name)}"""']
        lines += [""] * bool(fields)
        lines += [f"    {field}: {kind}" for field, kind in fields.items()]
        modules.append("\n".join(lines) + "\n")
    return "\n\n".join(modules)


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
