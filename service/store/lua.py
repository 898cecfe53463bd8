"""Lua functions that several scripts share, and what their callers in Python need."""

from typing import Any

import orjson

from models import MIN_VECTORS
from service.store.redis_keys import NOTIFY

AUDIT_KEPT = 10_000  # audit entries of a detector; the oldest are deleted
# Audit entries of one sender in an hour, for labels and decisions; these are stored elsewhere too.
HOURLY = 60

# The code of each shared name. `NamedScript` puts the names that a script uses before the script.
# A function comes after those that it calls.
LIBRARY = {
    # The store's time in milliseconds since 1970.
    "now": """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
""",
    # Returns fields of a hash by name; a missing field is false.
    "read": """
local function read(key, ...)
  local names, found = {...}, {}
  for i, value in ipairs(redis.call('HMGET', key, ...)) do found[names[i]] = value end
  return found
end
""",
    # Returns the fields of a stream entry by name; a missing field is nil.
    "fields": """
local function fields(entry)
  local found, flat = {}, entry[2]
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
""",
    # Returns the fields of a stored batch. A damaged batch counts no vectors, so that it can still
    # be parked, discarded and erased.
    "batch_of": """
local function batch_of(entry)
  local batch = fields(entry)
  for _, field in ipairs({BATCH.batch, BATCH.sender, BATCH.dimension, BATCH.payload}) do
    batch[field] = batch[field] or ''
  end
  local n, d = tonumber(batch[BATCH.vectors]), tonumber(batch[BATCH.dimension])
  local whole = n and d and n >= 0 and 4 * n * d <= #batch[BATCH.payload]
  batch[BATCH.vectors] = whole and n or 0
  return batch
end
""",
    # Notes the oldest buffered entry. If there is none, nothing is buffered: the counters are set
    # to 0, because a damaged batch may have left other numbers in them.
    "note_oldest": """
local function note_oldest(stream, cursor)
  local rest = redis.call('XRANGE', stream, '(' .. cursor, '+', 'COUNT', 1)[1]
  redis.call('HSET', KEYS.state, STATE.oldest, rest and rest[1] or '')
  if not rest then redis.call('HSET', KEYS.state, STATE.buffered, 0, STATE.buffered_bytes, 0) end
end
""",
    # Adds an audit entry. `from` and `to` are JSON; `rest` is the result of `audit_fields`.
    "audit": f"""
local function audit(log, now, from, to, rest)
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local seq, before = 1, ''
  if last then
    local latest = fields(last)
    seq, before = tonumber(latest[AUDITED.seq]) + 1, latest[AUDITED.hash]
  end
  local text = '{{"seq":' .. seq .. ',"at":' .. string.format('%.0f', now) .. ',"from":' .. from ..
    ',"to":' .. to .. ',' .. rest
  redis.call('XADD', log, 'MAXLEN', {AUDIT_KEPT}, '*', AUDITED.seq, seq, AUDITED.before, before,
             AUDITED.hash, redis.sha1hex(before .. text), AUDITED.entry, text)
end
""",
    # Adds an audit entry of an action that `who` may repeat without limit. The limit for each hour
    # keeps one sender from displacing the history.
    "audit_of": f"""
local function audit_of(who, log, hourly, now, from, to, rest)
  local hour = string.format('%.0f', math.floor(now / 3600000))
  local at, n = string.match(redis.call('HGET', hourly, who) or '', '^(%d+) (%d+)$')
  n = at == hour and tonumber(n) + 1 or 1
  redis.call('HSET', hourly, who, hour .. ' ' .. n)
  if n <= {HOURLY} then audit(log, now, from, to, rest) end
end
""",
    # Counts the answer in `known`. If a sender has too many answers, its own oldest ones are
    # deleted.
    "answered": """
local function answered()
  redis.call('EXPIRE', KEYS.known, ARGS.seconds)
  redis.call('SADD', KEYS.answerers, ARGS.suffix)
  redis.call('ZADD', KEYS.answers, now, KEYS.known)
  redis.call('ZREMRANGEBYSCORE', KEYS.answers, '-inf', now - ARGS.seconds * 1000)
  local over = redis.call('ZCARD', KEYS.answers) - tonumber(ARGS.most_answers)
  if over > 0 then
    for _, key in ipairs(redis.call('ZRANGE', KEYS.answers, 0, over - 1)) do
      redis.call('UNLINK', key)
    end
    redis.call('ZREMRANGEBYRANK', KEYS.answers, 0, over - 1)
  end
  redis.call('EXPIRE', KEYS.answers, ARGS.seconds)
end
""",
    # Subtracts rows that are no longer held from their sender's count. An earlier release did not
    # count held rows.
    "subtract_held": """
local function subtract_held(key, sender, n)
  if not sender or redis.call('HEXISTS', key, sender) == 0 then return end
  if redis.call('HINCRBY', key, sender, -n) <= 0 then redis.call('HDEL', key, sender) end
end
""",
    # Moves the champion; `version` is '' if no version serves any more. After a store was restored
    # from a copy, a number of a generation may occur twice. The nonce and the artifact's sha256
    # still identify the champion.
    "move": """
local function move(version, why)
  local from = tonumber(redis.call('HGET', KEYS.state, STATE.champion)) or 0
  local to = tonumber(version) or 0
  local generation = redis.call('HINCRBY', KEYS.state, STATE.generation, 1)
  redis.call('HSET', KEYS.state, STATE.champion, version, STATE.changed, now,
             STATE.champion_nonce, ARGS.nonce,
             STATE.champion_sha256, to > 0 and redis.call('HGET', KEYS.artifacts, version) or '')
  redis.call('RPUSH', KEYS.history, '{"generation":' .. generation .. ',"version":' ..
    (to > 0 and to or 'null') .. ',"from":' .. (from > 0 and from or 'null') .. ',"action":"' ..
    (to > from and 'promote' or 'rollback') .. '","at":' .. now .. ',' .. why)
  redis.call('LTRIM', KEYS.history, -10000, -1)
  if to > 0 then redis.call('ZADD', KEYS.promoted, generation, version) end
  return generation, (from > 0 and from or 'null')
end
""",
    # Tells every process that the detector of `KEYS.state` changed. Errors are ignored: the change
    # has already been written.
    "publish": f"""
local function publish()
  redis.pcall('PUBLISH', '{NOTIFY}', string.match(KEYS.state, '{{(.+)}}'))
end
""",
    # Returns whether the stream id `a` comes after `b`.
    "after": """
local function after(a, b)
  local at, an = string.match(a, '^(%d+)-(%d+)$')
  local bt, bn = string.match(b, '^(%d+)-(%d+)$')
  at, bt = tonumber(at), tonumber(bt)
  return at > bt or (at == bt and tonumber(an) > tonumber(bn))
end
""",
    # Makes an outcome final. A request that came during the run gets one more run if enough vectors
    # are left. One vector is enough if a person labelled it normal.
    "finish": f"""
local function finish()
  local stored = read(KEYS.state, STATE.requested, STATE.serving, STATE.buffered, STATE.labelled,
                    STATE.cursor)
  local label = stored[STATE.labelled] or ''
  local least = label ~= '' and after(label, stored[STATE.cursor]) and 1 or {MIN_VECTORS}
  local again = tonumber(stored[STATE.requested]) > tonumber(stored[STATE.serving])
    and tonumber(stored[STATE.buffered]) >= least
  local served = again and stored[STATE.serving] or stored[STATE.requested]
  redis.call('HSET', KEYS.state, STATE.retraining, again and 'queued' or 'idle', STATE.progress, 0,
             STATE.attempts, 0, STATE.interrupted, 0, STATE.run_weights, '', STATE.serving, served,
             STATE.served, served)
  if not again then redis.call('HSET', KEYS.state, STATE.weights, '') end
end
""",
}

# First lines of every fenced script.
FENCED = """
if redis.call('GET', KEYS.lease) ~= ARGS.holder then
  return {'fenced', 'the lease is lost'}
end
local state = KEYS.state
"""


class Fenced(Exception):  # noqa: N818 - it states what happened
    """The change was refused: the lease is lost, or the champion or the cursor has moved."""


def unfenced(reply: list[Any]) -> list[Any]:
    """Return a fenced script's reply; raise Fenced if the script refused."""
    if reply[0] == b"fenced":
        raise Fenced(reply[1].decode())
    return reply


def audit_fields(action: str, who: str, why: str = "", **more: Any) -> bytes:
    """Return the fields of an audit entry that the script does not add, for the Lua `audit`."""
    entry = {"action": action, "who": who, "why": why, **more}
    return orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)[1:]
