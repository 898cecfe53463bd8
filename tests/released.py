"""Restores what a released service stored (`tests/fixtures/write_released.py`) into a store."""

import base64
import functools
import gzip
import json
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

FIXTURE = Path(__file__).parent / "fixtures" / "released_9d5a4cf.json.gz"


@functools.cache
def released() -> dict[str, Any]:
    """Return the keys, the files of the disk cache, and the answers of the released service."""
    fixture: dict[str, Any] = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    return fixture


async def restore(redis: Redis) -> None:
    """Write every key as it was; keys that expire do so an hour from now."""
    for key, value in released()["redis"].items():
        content = value["content"]
        if value["kind"] == "stream":
            await _stream(redis, key, content, value["last"])
        elif value["kind"] == "string":
            await redis.set(key, _bytes(content))
        elif value["kind"] == "hash":
            await redis.hset(key, mapping={_bytes(f): _bytes(v) for f, v in content})
        elif value["kind"] == "zset":
            await redis.zadd(key, {_bytes(member): score for member, score in content})
        else:
            add = redis.rpush if value["kind"] == "list" else redis.sadd
            await add(key, *map(_bytes, content))
        if value["ttl"] >= 0:
            await redis.expire(key, 3600)


async def _stream(redis: Redis, key: str, content: list[Any], last: str) -> None:
    for entry_id, fields in content:
        await redis.xadd(key, {_bytes(f): _bytes(v) for f, v in fields}, id=entry_id)
    if not content:  # continue after its last entry, even if that entry is gone
        await redis.xadd(key, {"x": ""}, id=last)
        await redis.xtrim(key, maxlen=0)
    await redis.execute_command("XSETID", key, last)


def files(folder: Path) -> None:
    """Write the files of the disk cache into `folder`."""
    for name, content in released()["disk"].items():
        (folder / name).write_bytes(_bytes(content))


def _bytes(text: str) -> bytes:
    return base64.b85decode(text)
