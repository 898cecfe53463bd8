"""The writes of a worker while it retrains a detector; each write carries the lease's token.

A detector is `idle`, `queued` or `running`. It stays `queued` or `running` until an outcome is
final. A crash leaves it `running` for the next worker, which counts it. An attempt that failed or
was given up sets it back to `queued`.
"""

from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from service.store.leases import Lease, under_lease
from service.store.lua import FENCED
from service.store.script import NamedScript

_START = NamedScript(
    FENCED
    + """
local stored = read(state, STATE.requested, STATE.serving, STATE.weights, STATE.run_weights,
                  STATE.attempts, STATE.served, STATE.requested_trace, STATE.retraining)
local weights = stored[STATE.run_weights] or ''
if tonumber(stored[STATE.requested]) > tonumber(stored[STATE.serving]) then
  weights = stored[STATE.weights] or ''
  redis.call('HSET', state, STATE.weights, '')
end
redis.call('HSET', state, STATE.retraining, 'running', STATE.progress, 0,
           STATE.seconds_left, '', STATE.loss_old, '', STATE.loss_new, '',
           STATE.serving, stored[STATE.requested], STATE.run_weights, weights)
local asked = tonumber(stored[STATE.requested]) > tonumber(stored[STATE.served])
local interrupted = 0
if stored[STATE.retraining] == 'running' then
  interrupted = redis.call('HINCRBY', state, STATE.interrupted, 1)
end
return {'running', weights, tonumber(stored[STATE.attempts]),
        asked and stored[STATE.requested_trace] or '', interrupted}
""",
    keys="state lease",
    args="holder",
)

_PROGRESS = NamedScript(
    FENCED
    + """
redis.call('HSET', state, STATE.progress, ARGS.fraction, STATE.seconds_left, ARGS.seconds_left,
           STATE.loss_old, ARGS.loss_old, STATE.loss_new, ARGS.loss_new)
return {'running'}
""",
    keys="state lease",
    args="holder fraction seconds_left loss_old loss_new",
)

_FAIL = NamedScript(
    FENCED
    + """
redis.call('HSET', state, STATE.retraining, 'queued', STATE.progress, 0)
return {'queued', redis.call('HINCRBY', state, STATE.attempts, 1)}
""",
    keys="state lease",
    args="holder",
)

_GIVE_UP = NamedScript(
    FENCED
    + """
if read(state, STATE.retraining)[STATE.retraining] == 'running' then
  redis.call('HSET', state, STATE.retraining, 'queued', STATE.progress, 0)
end
return {'queued'}
""",
    keys="state lease",
    args="holder",
)

_STAND_DOWN = NamedScript(
    FENCED
    + """
note_oldest(KEYS.stream, redis.call('HGET', state, STATE.cursor))
finish()
return {'idle'}
""",
    keys="state lease stream",
    args="holder",
)

# The number of attempts stays, so that no trigger starts another run.
_END_UNREAD = NamedScript(
    FENCED
    + """
local attempts = redis.call('HGET', state, STATE.attempts)
redis.call('HINCRBY', state, STATE.failed, 1)
redis.call('HSET', state, STATE.last_retraining,
           '{"outcome":"failed","version":null,"finished_at":' .. now .. ',' .. ARGS.ending)
finish()
redis.call('HSET', state, STATE.attempts, attempts)
publish()
return {'failed'}
""",
    keys="state lease",
    args="holder ending",
)


class StartedRun(NamedTuple):
    """A retraining that has begun: the weights requested for it alone, and its failed attempts.

    `trace` is the trace id of the request for this run; '' if no request or no trace id exists.
    `interrupted` counts the runs with the present experience that ended with their worker; 0 if the
    last run ended otherwise.
    """

    weights: dict[str, float] | str | None
    attempts: int
    trace: str = ""
    interrupted: int = 0


class TrainingProgress(NamedTuple):
    """A training's progress: fraction done, seconds left, loss on old and on new vectors."""

    fraction: float
    seconds_left: float | None = None
    loss_old: float | None = None
    loss_new: float | None = None


class Retrainings:
    """Changes the state of a detector's retraining, for the worker that holds the lease.

    Every method raises Fenced once the lease is lost.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def start(self, lease: Lease) -> StartedRun:
        """Set the detector to `running`; this run serves all requests made so far."""
        reply = await under_lease(self._redis, _START, lease, {})
        weights = orjson.loads(reply[1]) if reply[1] else None
        return StartedRun(weights, int(reply[2]), reply[3].decode(), int(reply[4]))

    async def progress(self, lease: Lease, progress: TrainingProgress) -> None:
        """Publish the progress of the training."""
        args = {name: "" if x is None else f"{x:.4f}" for name, x in progress._asdict().items()}
        await under_lease(self._redis, _PROGRESS, lease, args)

    async def attempt_failed(self, lease: Lease) -> int:
        """Set the detector back to `queued`; return how many attempts have failed so far."""
        return int((await under_lease(self._redis, _FAIL, lease, {}))[1])

    async def give_up(self, lease: Lease) -> None:
        """Set the detector back to `queued` if it is `running`: this worker ends the run itself."""
        await under_lease(self._redis, _GIVE_UP, lease, {})

    async def stand_down(self, lease: Lease) -> None:
        """End a run without an outcome, because there is nothing to learn."""
        await under_lease(self._redis, _STAND_DOWN, lease, {})

    async def end_unread(self, lease: Lease, reason: str, *, seconds: float) -> None:
        """End a run as failed without moving the cursor, because the buffer cannot be read.

        No trigger starts another run. A person's request does.
        """
        ending = orjson.dumps({"reasons": [reason], "seconds": seconds})[1:]
        await under_lease(self._redis, _END_UNREAD, lease, {"ending": ending})
