"""Lua that several scripts share."""

from typing import Any

import orjson

from models import MIN_VECTORS

KEPT = 10_000  # entries of a detector; the oldest go

# For scripts. `from` and `to` are JSON; `said` is JSON without its opening brace, from `said`.
AUDIT = f"""
local function audit(log, now, from, to, said)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local seq, before = 1, ''
  if last then seq, before = tonumber(last[2][2]) + 1, last[2][6] end
  local text = '{{"seq":' .. seq .. ',"at":' .. string.format('%.0f', now) .. ',"from":' .. from ..
    ',"to":' .. to .. ',' .. said
  redis.call('XADD', log, 'MAXLEN', {KEPT}, '*', 's', seq, 'p', before,
             'h', redis.sha1hex(before .. text), 'e', text)
end
"""


def said(action: str, who: str, why: str = "", **what: Any) -> bytes:
    """Return what an entry says beside what its script adds, as `audit` wants it."""
    entry = {"action": action, "who": who, "why": why, **what}
    return orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)[1:]


NOW = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
"""


# First lines of every fenced script: KEYS[1] is the state, KEYS[2] the lease, ARGV[1] its holder.
FENCED = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return {'fenced', 'the lease is lost'}
end
local state, now = KEYS[1], redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
"""


class Fenced(Exception):  # noqa: N818 - it states what happened
    """The change was refused: the lease is lost, or the champion or the cursor moved."""


# `version` is '' where nothing serves any more.
MOVE = """
local function move(state, now, history, promoted, version, rest)
  local from, to = tonumber(redis.call('HGET', state, 'champion')) or 0, tonumber(version) or 0
  local generation = redis.call('HINCRBY', state, 'generation', 1)
  redis.call('HSET', state, 'champion', version)
  redis.call('RPUSH', history, '{"generation":' .. generation .. ',"version":' ..
    (to > 0 and to or 'null') .. ',"from":' .. (from > 0 and from or 'null') .. ',"action":"' ..
    (to > from and 'promote' or 'rollback') .. '","at":' .. now .. ',' .. rest)
  redis.call('LTRIM', history, -10000, -1)
  if to > 0 then redis.call('ZADD', promoted, generation, version) end
  return generation, (from > 0 and from or 'null')
end
"""

NOW = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
"""


# For scripts that make an outcome final. A request that came during the run is served by one more,
# if enough is left to learn.
FINISH = f"""
local function finish(state)
  local held = redis.call('HMGET', state, 'requested', 'serving', 'buffered')
  local again = tonumber(held[1]) > tonumber(held[2]) and tonumber(held[3]) >= {MIN_VECTORS}
  local served = again and held[2] or held[1]
  redis.call('HSET', state, 'retraining', again and 'queued' or 'idle', 'progress', 0,
             'attempts', 0, 'run_weights', '', 'serving', served, 'served', served)
  if not again then redis.call('HSET', state, 'weights', '') end
end
"""


def unfenced(reply: list[Any]) -> list[Any]:
    """Return a fenced script's reply; raise Fenced where it refused."""
    if reply[0] == b"fenced":
        raise Fenced(reply[1].decode())
    return reply
