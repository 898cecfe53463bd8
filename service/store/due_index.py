"""The due index: it finds the detectors that are due for a retraining without reading them all.

Each detector name is in one of 64 sorted sets, sorted by the time when the detector is due. An
index entry is a hint: a separate command writes it after the change that makes the detector due. So
an entry may be missing or outdated. A worker reads the detector itself before it begins, and its
janitor compares the index with all detectors once a round. All times are of the store's clock.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from redis.asyncio import Redis

from models import MIN_VECTORS
from service.domain.detector import Detector
from service.domain.retraining_due import due_at
from service.problems import StoreUnavailable
from service.store.connection import ask
from service.store.detector_state import read
from service.store.redis_keys import DUE, due, running
from service.store.script import NamedScript

HEADS = 4  # detectors read from each set: a worker chooses from 256
_HINT_SECONDS = 0.2  # longest wait of a batch's sender for the hint
_BOUNDS = 10_000  # detectors whose trigger this process remembers
_CORRECTING_SECONDS = 5.0  # an interrupted correction is due again after this
_AT_ONCE = 500  # detectors compared before other tasks get a turn
_EARLIER_SECONDS = 1.0  # the janitor moves a hint that is later than this

_NOW = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
"""

# While a worker retrains a detector, the detector's due time stays the end of the worker's lease.
_NOTE = NamedScript(
    _NOW
    + """
local lease = redis.call('ZSCORE', KEYS.running, ARGS.name)
if lease and tonumber(lease) > now then return 0 end
return redis.call('ZADD', KEYS.due, 'LT', now + ARGS.seconds, ARGS.name)
""",
    keys="due running",
    args="name seconds",
)

_BEGIN = NamedScript(
    _NOW
    + """
redis.call('ZADD', KEYS.due, now + ARGS.seconds, ARGS.name)
redis.call('ZADD', KEYS.running, now + ARGS.seconds, ARGS.name)
redis.call('ZREMRANGEBYSCORE', KEYS.running, '-inf', now - 60)
""",
    keys="due running",
    args="name seconds",
)

# Until `_CLOSE`, other processes can only write an earlier time (`LT` in `_NOTE`). `_CLOSE` detects
# that by comparing the time.
_OPEN = NamedScript(
    _NOW
    + """
local lease = redis.call('ZSCORE', KEYS.running, ARGS.name)
if ARGS.run_is_over == '' and lease and tonumber(lease) > now then return false end
redis.call('ZREM', KEYS.running, ARGS.name)
redis.call('ZADD', KEYS.due, now + ARGS.seconds, ARGS.name)
return redis.call('ZSCORE', KEYS.due, ARGS.name)
""",
    keys="due running",
    args="name run_is_over seconds",
)

_CLOSE = NamedScript(
    _NOW
    + """
if redis.call('ZSCORE', KEYS.due, ARGS.name) ~= ARGS.seen then return 0 end
if ARGS.seconds == '' then return redis.call('ZREM', KEYS.due, ARGS.name) end
return redis.call('ZADD', KEYS.due, now + ARGS.seconds, ARGS.name)
""",
    keys="due running",
    args="name seen seconds",
)

_FORGET = NamedScript(
    "redis.call('ZREM', KEYS.due, ARGS.name) redis.call('ZREM', KEYS.running, ARGS.name)",
    keys="due running",
    args="name",
)

# The keys are pairs: a set of the index, then its set of running retrainings.
_HEADS = NamedScript(
    _NOW
    + """
local found = {}
for i = 1, #KEYS, 2 do
  local rows = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'WITHSCORES', 'LIMIT', 0,
                          ARGS.most)
  for k = 1, #rows, 2 do
    found[#found + 1] = rows[k]
    found[#found + 1] = string.format('%.3f', now - rows[k + 1])
  end
end
return found
""",
    keys="",
    args="most",
    flags="no-writes",
)

_WORK = NamedScript(
    _NOW
    + """
local due, running, first = 0, 0, now
for i = 1, #KEYS, 2 do
  due = due + redis.call('ZCOUNT', KEYS[i], '-inf', now)
  running = running + redis.call('ZCOUNT', KEYS[i + 1], now, '+inf')
  local head = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if head[2] then first = math.min(first, tonumber(head[2])) end
end
return {due, running, string.format('%.3f', now - first)}
""",
    keys="",
    flags="no-writes",
)

_ALL = [key for due_key in DUE for key in (due_key, running(due_key))]


class Work(Struct, frozen=True):
    """How many detectors wait for a retraining, how many are retrained, and the longest wait."""

    due: int
    running: int
    oldest_seconds: float


class DueIndex:
    """The due index. A failed write raises nothing: the janitor's next round repairs the index."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._bounds: dict[str, float] = {}  # buffered vectors that make a detector due

    async def heads(self) -> dict[str, float]:
        """Return a few detectors of each set, longest wait (s) first; raises StoreUnavailable."""
        _, values = _HEADS.bound({}, {"most": HEADS})
        due = await _HEADS.script(self._redis, _ALL, values)
        return {
            name.decode(): float(waited) for name, waited in zip(due[::2], due[1::2], strict=True)
        }

    async def work(self) -> Work:
        """Return how much work waits; raises StoreUnavailable."""
        due_now, runs, oldest = await _WORK.script(self._redis, _ALL)
        return Work(due_now, runs, float(oldest))

    async def note(self, detector: Detector) -> None:
        """Write when the detector is due; an earlier time in the index stays."""
        self._remember_bound(detector)
        now = time.time()
        at = due_at(detector, now)
        if at is not None:
            await self._write(_NOTE, detector.name, seconds=at - now)

    async def refresh(self, name: str) -> None:
        """Read the detector and write when it is due."""
        with contextlib.suppress(StoreUnavailable):
            detector = (await read(self._redis, [name])).get(name)
            if detector is not None:
                await self.note(detector)

    async def ingested(self, name: str, before: int, after: int, *, labelled: bool = False) -> None:
        """Write when the detector is due if a batch made it due; waits for a moment at most.

        The batch raised the number of buffered vectors from `before` to `after`. A few vectors are
        enough if they are `labelled` normal by a person.
        """
        bound = self._bounds.get(name, 0)
        crossed = any(before < most <= after for most in (MIN_VECTORS, bound))
        if labelled or crossed or not bound:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HINT_SECONDS):
                    await self.refresh(name)

    async def begin(self, name: str, seconds: float) -> None:
        """Write that a worker retrains the detector under a lease of `seconds` from now."""
        await self._write(_BEGIN, name, seconds=seconds)

    async def retraining_over(self, name: str) -> None:
        """Write that the caller's retraining is over, and when the detector is due again."""
        await self._correct(name, run_is_over=True)

    async def correct(self, name: str) -> None:
        """Correct the detector's due time, unless a worker retrains the detector."""
        await self._correct(name, run_is_over=False)

    async def forget(self, name: str) -> None:
        """Remove a deleted detector from the index."""
        self._bounds.pop(name, None)
        await self._write(_FORGET, name)

    async def _correct(self, name: str, *, run_is_over: bool) -> None:
        """Correct the due time. A write by others between the two writes here is kept.

        While a worker retrains the detector nothing changes, unless the caller is that worker and
        its `run_is_over`.
        """
        over = "yes" if run_is_over else ""
        seen = await self._write(_OPEN, name, run_is_over=over, seconds=_CORRECTING_SECONDS)
        if seen is None:
            return
        with contextlib.suppress(StoreUnavailable):
            now, detector = time.time(), (await read(self._redis, [name])).get(name)
            at = None if detector is None else due_at(detector, now)
            await self._write(_CLOSE, name, seen=seen, seconds="" if at is None else at - now)

    async def repair(self, detectors: Iterable[Detector]) -> int:
        """Write the entries that are missing or late by more than a second; return how many.

        A worker corrects an entry that should not be there. Raises StoreUnavailable.
        """
        now, due = time.time(), dict[str, tuple[Detector, float]]()
        for seen, state in enumerate(detectors, 1):
            if (at := due_at(state, now)) is not None:
                due[state.name] = state, at
            if seen % _AT_ONCE == 0:
                await asyncio.sleep(0)  # an API process also has to answer requests
        pipe = self._redis.pipeline(transaction=False)
        for key in DUE:
            pipe.zrange(key, 0, -1, withscores=True)
            pipe.zrangebyscore(running(key), "-inf", "+inf")
        pipe.time()
        *replies, (seconds, micros) = await ask(self._redis, pipe.execute())
        behind = seconds + micros / 1e6 - now  # the store's clock minus this process's
        shown_until = {name.decode(): at - behind for rows in replies[::2] for name, at in rows}
        busy = {name.decode() for rows in replies[1::2] for name in rows}
        late = [
            detector
            for name, (detector, at) in due.items()
            if name not in shown_until
            or (shown_until[name] > at + _EARLIER_SECONDS and name not in busy)
        ]
        for detector in late:
            await self.note(detector)
        return len(late)

    def _remember_bound(self, detector: Detector) -> None:
        if len(self._bounds) >= _BOUNDS:
            self._bounds.clear()
        self._bounds[detector.name] = detector.config.retrain.min_vectors or float("inf")

    async def _write(self, script: NamedScript, name: str, **args: Any) -> Any:
        key = due(name)
        script_keys = {"due": key, "running": running(key)}
        with contextlib.suppress(StoreUnavailable):
            return await script(self._redis, script_keys, {"name": name, **args})
        return None
