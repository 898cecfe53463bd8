"""Reads about many detectors: the number of round trips hardly grows with the detectors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from service import log
from service.domain.history import MINUTE, chunks_within, rows_and_alarms, step_of
from service.store.connection import ask_each
from service.store.incidents import INCIDENTS_KEPT, IncidentWithDecision, with_decision
from service.store.redis_keys import Keys
from service.timestamps import rfc3339

_AT_ONCE = 100  # detectors read in one round trip
_NEWEST = 20  # incidents of a detector that are read first, to find the open ones
_UNREADABLE = "a part of a detector is left out: it cannot be read"

_log = log.get(__name__)


class Recent(NamedTuple):
    """When the champion was last moved (RFC 3339), and the rows and alarms since some time."""

    moved_at: str | None
    rows: int
    alarms: int


class BatchedReads:
    """Reads one thing of many detectors. What is damaged is logged and left out."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def open_incidents(
        self, unfinished: Mapping[str, int]
    ) -> dict[str, list[IncidentWithDecision]]:
        """Return the open incidents of each detector, newest first; `unfinished` counts them.

        The open incidents of a detector are mostly its newest ones. So the newest few are read of
        each detector, and the next ones only of detectors with more open incidents.
        """
        found: dict[str, list[IncidentWithDecision]] = {name: [] for name in unfinished}
        left, start, count = [name for name in unfinished if unfinished[name] > 0], 0, _NEWEST
        while left and start < INCIDENTS_KEPT:
            for names in _batches(left):
                for name, newest in (await self._newest(names, start, count)).items():
                    found[name] += [one for one in newest if one.incident.state == "open"]
            left = [name for name in left if len(found[name]) < unfinished[name]]
            start, count = start + count, 4 * count
        return found

    async def _newest(
        self, names: Sequence[str], start: int, count: int
    ) -> dict[str, list[IncidentWithDecision]]:
        """Return `count` incidents of each detector, newest first, without the first `start`."""
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.zrevrange(Keys(name).incident_order, start, start + count - 1)
        orders = dict(zip(names, await ask_each(self._redis, pipe), strict=True))
        asked = [name for name, order in orders.items() if order and isinstance(order, list)]
        if not asked:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for name in asked:
            pipe.hmget(Keys(name).incidents, orders[name])
            pipe.hmget(Keys(name).incident_decisions, orders[name])
        replies = await ask_each(self._redis, pipe)
        newest: dict[str, list[IncidentWithDecision]] = {}
        for name, packs, decisions in zip(asked, replies[::2], replies[1::2], strict=True):
            with log.tolerated(_log, _UNREADABLE, detector=name):
                pairs = zip(packs, decisions, strict=True)
                newest[name] = [with_decision(*pair) for pair in pairs if pair[0]]
        return newest

    async def recent(self, names: Sequence[str], since: float, now: float) -> dict[str, Recent]:
        """Return each detector's last move of the champion, and its rows and alarms since `since`.

        The times are in seconds since 1970. `since` is less than two days before `now`.
        """
        chunks = [name for name in chunks_within(since, now) or () if step_of(name) == MINUTE]
        found: dict[str, Recent] = {}
        for batch in _batches(names):
            pipe = self._redis.pipeline(transaction=False)
            for name in batch:
                pipe.lindex(Keys(name).history, -1)
                pipe.hmget(Keys(name).buckets, chunks)
            replies = await ask_each(self._redis, pipe)
            for name, move, packs in zip(batch, replies[::2], replies[1::2], strict=True):
                with log.tolerated(_log, _UNREADABLE, detector=name):
                    moved_at = rfc3339(orjson.loads(move)["at"] / 1000) if move else None
                    counts = [rows_and_alarms(packed, since) for packed in packs if packed]
                    rows, alarms = map(sum, zip((0, 0), *counts, strict=True))
                    found[name] = Recent(moved_at, rows, alarms)
        return found


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _AT_ONCE):
        yield names[first : first + _AT_ONCE]
