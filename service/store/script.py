"""Scripts whose keys, arguments and fields have names.

Names are replaced by positions when the module is imported. So a name costs nothing when the script
runs, and an undeclared name fails at import:

- `KEYS.state` becomes `KEYS[i]`, where i is the position of `state` in the script's `keys`.
- `ARGS.vectors` is an argument. All arguments are sent as text in one MessagePack map, `ARGV[1]`.
- `DATA.vectors` is a payload, which may be large. It becomes `ARGV[i]` by its position in `data`.
- `DATA.entries` stands for the index of the first payload if `data` ends in `*entries`, which takes
  any number of payloads.
- `read(...)`, `audit(...)`, `now` and others are shared code: see `lua.LIBRARY`. A script gets what
  it uses.
- `STATE.buffered`, `BATCH.sender` and others name a field of a hash or stream entry: see `schema`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from service.store.connection import Script
from service.store.lua import LIBRARY
from service.store.redis_keys import Keys
from service.store.schema import FIELDS

_ARGS = "local args = cmsgpack.unpack(ARGV[1])\n"
_NAME = re.compile(r"\b([A-Z]+)\.([a-z_0-9]+)")


class NamedScript:
    """A Lua script; `keys`, `args` and `data` are names, separated by spaces.

    A key whose name ends in `?` is optional and stands after all others. If left out, it is nil.
    """

    def __init__(
        self, source: str, *, keys: str, args: str = "", data: str = "", flags: str = ""
    ) -> None:
        self.source = source = _with_library(source)
        self.names = {"keys": keys, "args": args, "data": data, "flags": flags}
        self._keys = tuple(name.removesuffix("?") for name in keys.split())
        self._optional = {name.removesuffix("?") for name in keys.split() if name.endswith("?")}
        self._args = frozenset(args.split())
        self._data = tuple(data.split())
        self.script = Script((_ARGS if self._args else "") + self._numbered(source), flags=flags)

    async def __call__(
        self,
        redis: Redis,
        keys: Keys | Mapping[str, str],
        args: Mapping[str, object] | None = None,
        data: Sequence[bytes] = (),
        **more: str,
    ) -> Any:
        """Run the script with its keys from `keys` and `more`; raises StoreUnavailable."""
        return await self.script(redis, *self.bound(keys, args, data, **more))

    def bound(
        self,
        keys: Keys | Mapping[str, str],
        args: Mapping[str, object] | None = None,
        data: Sequence[bytes] = (),
        **more: str,
    ) -> tuple[list[str], list[Any]]:
        """Return the keys and the arguments in the order that the script expects."""
        args = args or {}
        if args.keys() != self._args:
            raise TypeError(f"arguments differ: {sorted(args.keys() ^ self._args)}")
        named = dict(keys) if isinstance(keys, Mapping) else {}
        places = [
            more.get(name) or named.get(name) or getattr(keys, name)
            for name in self._keys
            if name not in self._optional or name in more
        ]
        return places, [*([_packed_args(args)] if self._args else []), *data]

    def _numbered(self, source: str) -> str:
        first = 2 if self._args else 1

        def number(match: re.Match[str]) -> str:
            kind, name = match.groups()
            if kind == "KEYS":
                return f"KEYS[{1 + self._keys.index(name)}]"
            if kind == "ARGS":
                if name not in self._args:
                    raise LookupError(f"ARGS.{name} is not declared")
                return f"args.{name}"
            if kind == "DATA":
                if f"*{name}" in self._data:
                    return str(first + self._data.index(f"*{name}"))
                return f"ARGV[{first + self._data.index(name)}]"
            if kind in FIELDS:
                return f"'{FIELDS[kind][name]}'"
            return match[0]

        return _NAME.sub(number, source)


def _with_library(source: str) -> str:
    """Return the script behind the shared names that it uses and does not define."""
    for name, code in reversed(LIBRARY.items()):
        used = r"\bnow\b" if name == "now" else rf"\b{name}\("
        defined = re.search(rf"\blocal (function )?{name}\b", source)
        if re.search(used, source) and not defined:
            source = code + source
    return source


def _packed_args(args: Mapping[str, object]) -> bytes:
    """Return a MessagePack map of names to values, all as text; 65,535 values at most.

    Bytes are also packed as text: the store's MessagePack reader supports no other type.
    """
    parts = [b"\xde", len(args).to_bytes(2)]
    for name, value in args.items():
        text = value if isinstance(value, bytes) else str(value).encode()
        parts += (_packed_text(name.encode()), _packed_text(text))
    return b"".join(parts)


def _packed_text(value: bytes) -> bytes:
    n = len(value)
    if n < 32:
        return bytes([0xA0 | n]) + value
    head = b"\xda" + n.to_bytes(2) if n < 65_536 else b"\xdb" + n.to_bytes(4)
    return head + value
