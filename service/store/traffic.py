"""Reports of scored traffic on their way from the API processes to the worker.

A report is stored once: if a process does not know whether the store has it, the process sends it
again under the same number. A report stays until the worker has counted it, so the worker may be
absent for hours.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from service.domain.event import Event
from service.domain.traffic import Report, decode, encode
from service.store.connection import ask, ask_each
from service.store.packing import packed
from service.store.redis_keys import Keys
from service.store.script import NamedScript
from service.store.streams import bounded

REPORTS_KEPT = 20_000  # five hours of one API process without a worker
SEEN_SECONDS = 3600  # how long a report's number is remembered

ALARMED_KEPT = 10_000  # latest vectors that alarmed, by digest

_REPORT = NamedScript(
    """
if redis.call('HGET', KEYS.state, STATE.uid) ~= ARGS.uid then return 0 end
local number = tonumber(ARGS.number)
if number <= tonumber(redis.call('GET', KEYS.seen) or 0) then return 1 end
local ids = {}
for i = DATA.events, #ARGV do
  ids[#ids + 1] = redis.call('XADD', KEYS.events, 'MAXLEN', ARGS.most_events, '*',
                             ENTRY.packed, ARGV[i])
end
redis.call('XADD', KEYS.traffic, 'MAXLEN', ARGS.most_reports, '*', REPORT.packed, DATA.report,
           REPORT.events, table.concat(ids, ' '))
redis.call('SET', KEYS.seen, number, 'EX', ARGS.seconds)
local now = redis.call('TIME')[1]
for one in string.gmatch(ARGS.digests, '%S+') do redis.call('ZADD', KEYS.alarmed, now, one) end
redis.call('ZREMRANGEBYRANK', KEYS.alarmed, 0, -ARGS.most_digests - 1)
return 1
""",
    keys="state events traffic seen alarmed",
    args="uid number most_events most_reports seconds digests most_digests",
    data="report *events",
)


class StoredReport(NamedTuple):
    """A report with its stream id; `report` is None if it has the format of another release."""

    id: str
    report: Report | None


class TrafficStore:
    """The reports of every detector."""

    def __init__(self, redis: Redis, *, events_kept: int = 1000) -> None:
        self._redis: Any = redis
        self._events_kept = events_kept

    async def send(
        self,
        name: str,
        process: str,
        number: int,
        report: Report,
        events: Sequence[Event] = (),
        alarmed: Iterable[str] = (),
    ) -> bool:
        """Write the report, its events and the digests of the vectors that alarmed.

        The numbers of one process rise. A number that `process` has already used writes nothing.
        Returns False if the report's detector was deleted. Raises StoreUnavailable: then the
        outcome is unknown, and the caller sends the report again.
        """
        keys, body = Keys(name), encode(report)
        entries = list(map(packed, events))
        args = {
            "uid": report.uid,
            "number": number,
            "most_events": bounded(self._events_kept, max(map(len, entries), default=1)),
            "most_reports": bounded(REPORTS_KEPT, len(body)),
            "seconds": SEEN_SECONDS,
            "digests": " ".join(alarmed),
            "most_digests": ALARMED_KEPT,
        }
        seen = keys.traffic_seen(process)
        return bool(await _REPORT(self._redis, keys, args, (body, *entries), seen=seen))

    async def recorded(self, name: str, digests: Sequence[str]) -> dict[str, float]:
        """Return those of `digests` whose vectors alarmed recently, each with the alarm's time.

        The time is that of the report, in seconds since 1970.
        """
        key = Keys(name).alarmed
        scores = await ask(self._redis, self._redis.zmscore(key, list(digests)))
        pairs = zip(digests, scores, strict=True)
        return {digest: float(score) for digest, score in pairs if score is not None}

    async def read(self, name: str, after: str = "0-0", count: int = 100) -> list[StoredReport]:
        """Return up to `count` reports after the stream id `after`, oldest first."""
        client = self._redis
        rows = await ask(client, client.xrange(Keys(name).traffic, f"({after}", "+", count=count))
        return [
            StoredReport(row.decode(), decode(entry[b"r"], entry[b"i"].decode().split()))
            for row, entry in rows
        ]

    async def unread_since(self, names: Sequence[str]) -> dict[str, float]:
        """Return when the oldest report of each detector came that no worker has read.

        The times are in seconds since 1970. Detectors without such a report are left out. The
        oldest stored report does not count: `save` leaves the report that was read last.
        """
        if not names:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.xrange(Keys(name).traffic, count=2)
        replies = zip(names, await ask_each(self._redis, pipe), strict=True)
        return {
            name: int(rows[1][0].partition(b"-")[0]) / 1000
            for name, rows in replies
            if isinstance(rows, list) and len(rows) > 1
        }
