"""Group commit: the writes of several callers go to the store together and are synced once.

A store that syncs every write before it answers does so once for whatever it did in between; one
caller after another is held to one write a sync. So callers that come while a write is under way
wait for it, and share the next one: a transaction in which the script runs once for each of them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from service.store.connection import Script, ask

MOST_CALLS = 64  # of one transaction: the store serves nobody else meanwhile, some 10 ms
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class _Call:
    keys: Sequence[str]
    args: Sequence[Any]
    bytes: int
    reply: "asyncio.Future[Any]"


class Group:
    """Runs one script for many callers; each caller gets the reply or the error of its own run.

    Only callers with the same `tag` share a transaction: their keys must be on one cluster node.
    """

    def __init__(self, redis: Redis, script: Script) -> None:
        self._redis: Any = redis
        self._script = script
        self._waiting: dict[str, deque[_Call]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def __call__(
        self, tag: str, keys: Sequence[str], args: Sequence[Any], size: int = 0
    ) -> Any:
        """Run the script once over `keys` with `args`, of `size` bytes.

        StoreUnavailable when the outcome is unknown, within the deadline of the client.
        """
        call = _Call(keys, args, size, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(tag, deque()).append(call)
        if tag not in self._sending:
            # A task begins in the next turn of the loop, when all callers of this one are here.
            self._sending[tag] = asyncio.create_task(self._send(tag))
        try:
            return await ask(self._redis, call.reply)
        finally:
            call.reply.cancel()  # what was given up before it was sent is not sent

    async def _send(self, tag: str) -> None:
        waiting = self._waiting[tag]
        try:
            while calls := _next(waiting):
                await self._run(calls, waiting)
        finally:
            del self._sending[tag], self._waiting[tag]

    async def _run(self, calls: Sequence[_Call], waiting: deque[_Call]) -> None:
        """Run the script for each of `calls`, and give each its reply."""
        replies: Sequence[Any]
        try:
            replies = await self._replies(calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it
            # Who waits is told too, without having been sent: the store is away.
            calls = [*calls, *waiting]
            waiting.clear()
            replies = [error] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if call.reply.done():
                continue
            if isinstance(reply, Exception):
                call.reply.set_exception(reply)
            else:
                call.reply.set_result(reply)

    async def _replies(self, calls: Sequence[_Call]) -> Sequence[Any]:
        if len(calls) == 1:
            return [await self._script.run(self._redis, calls[0].keys, calls[0].args)]
        replies = await self._transaction(calls)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # None of them ran: the script stays known, or unknown, throughout a transaction.
            await self._redis.script_load(self._script.source)
            replies = await self._transaction(calls)
        return replies

    async def _transaction(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=True) as pipe:
            for call in calls:
                pipe.evalsha(self._script.sha, len(call.keys), *call.keys, *call.args)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _next(waiting: deque[_Call]) -> list[_Call]:
    """Take the calls of the next transaction from `waiting`; drop those that were cancelled."""
    calls: list[_Call] = []
    size = 0
    while waiting and len(calls) < MOST_CALLS:
        if calls and size + waiting[0].bytes > MOST_BYTES:
            break
        call = waiting.popleft()
        if not call.reply.done():
            calls.append(call)
            size += call.bytes
    return calls
