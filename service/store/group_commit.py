"""Group commit: the writes of several callers go to the store together and are synced once.

The store syncs its file to disk before it answers a write. If callers write one after another, each
write costs one sync. So callers that arrive during a write wait for its end. Then they share the
next write: one transaction that runs the script once for each caller.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from service.store.connection import Script, ask

MOST_CALLS = 64  # calls of one transaction, which blocks the store for some 10 ms
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class _Call:
    keys: Sequence[str]
    args: Sequence[Any]
    bytes: int
    reply: "asyncio.Future[Any]"


class GroupCommit:
    """Runs one script for many callers; each caller gets the reply or the error of its own run.

    Only callers with the same `tag` share a transaction. All keys of a tag are on one cluster node.
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

        Raises StoreUnavailable within the client's deadline if the outcome is unknown.
        """
        call = _Call(keys, args, size, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(tag, deque()).append(call)
        if tag not in self._sending:
            # The task starts in the loop's next turn: all callers of this turn then wait already.
            self._sending[tag] = asyncio.create_task(self._send(tag))
        try:
            return await ask(self._redis, call.reply)
        finally:
            call.reply.cancel()  # a call that its caller gave up is not sent any more

    async def _send(self, tag: str) -> None:
        waiting = self._waiting[tag]
        try:
            while calls := _take_next(waiting):
                await self._answer_calls(calls, waiting)
        finally:
            del self._sending[tag], self._waiting[tag]

    async def _answer_calls(self, calls: Sequence[_Call], waiting: deque[_Call]) -> None:
        """Run the script for each of `calls`, and give each its reply."""
        replies: Sequence[Any]
        try:
            replies = await self._replies(calls)
        except Exception as error:  # noqa: BLE001 - whatever it is, every caller must hear of it
            # Fail the queued calls as well: the store is unreachable.
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
            # No call ran: a script unknown to the store stays unknown for a whole transaction.
            await self._redis.script_load(self._script.source)
            replies = await self._transaction(calls)
        return replies

    async def _transaction(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=True) as pipe:
            for call in calls:
                pipe.evalsha(self._script.sha, len(call.keys), *call.keys, *call.args)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies


def _take_next(waiting: deque[_Call]) -> list[_Call]:
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
