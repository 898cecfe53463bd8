"""The registry's scripts. Each checks everything before its first write."""

from service.store.connection import Script
from service.store.lua import AUDIT, FENCED, FINISH, MOVE, NOW

# What may change between taking an experience and settling it.
_AS_TAKEN = """
local held = redis.call('HMGET', state, 'uid', 'generation', 'cursor', 'champion', 'learned')
if held[1] ~= ARGV[2] then return {'fenced', 'the detector is another one'} end
if held[3] ~= ARGV[4] then return {'fenced', 'the cursor moved'} end
local first, last, n, bytes = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
"""

_ADVANCE = """
local function advance(stream)
  redis.call('HINCRBY', state, 'buffered', -n)
  redis.call('HINCRBY', state, 'buffered_bytes', -bytes)
  local rest = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  redis.call('HSET', state, 'cursor', last, 'oldest', rest and rest[1] or '')
end
local function park(parked, id, version, reason)
  redis.call('HSET', parked, id, '{"id":"' .. id .. '","kind":"experience","first":"' .. first ..
    '","last":"' .. last .. '","n":' .. n .. ',"bytes":' .. bytes .. ',"version":' .. version ..
    ',"parked":' .. now .. ',"reason":' .. reason .. '}')
  redis.call('HINCRBY', state, 'parked', n)
  redis.call('HINCRBY', state, 'parked_bytes', bytes)
end
"""


_NUMBER = """
local function number(state, now, versions, artifacts, artifact, outcome, rest, sha256, payload)
  local version = redis.call('HINCRBY', state, 'last_version', 1)
  redis.call('HSET', versions, version, '{"format":1,"version":' .. version .. ',"outcome":"' ..
    outcome .. '","created":' .. now .. ',' .. rest)
  redis.call('HSET', artifacts, version, sha256)
  if redis.call('EXISTS', artifact) == 0 then redis.call('SET', artifact, payload) end
  return version
end
"""

# KEYS: state, lease, stream, versions, artifacts, artifact, learned, history, promoted, erasable,
# parked, audit, sources. ARGV: holder, uid, generation, first, last, vectors, bytes, outcome,
# record, sha256, artifact, last retraining, reason, channel, name, what the audit says, sources
SETTLE = Script(
    FENCED
    + _AS_TAKEN
    + """
if held[2] ~= ARGV[3] then return {'fenced', 'the champion moved'} end
"""
    + FINISH
    + _ADVANCE
    + MOVE
    + _NUMBER
    + AUDIT
    + """
local outcome, learned = ARGV[8], tonumber(held[5])
local version = number(state, now, KEYS[4], KEYS[5], KEYS[6], outcome, ARGV[9], ARGV[10], ARGV[11])
redis.call('HSET', KEYS[13], version, ARGV[17])
advance(KEYS[3])
if outcome == 'promoted' then
  learned = learned + n
  move(state, now, KEYS[8], KEYS[9], version, '"who":"worker","why":"retraining"}')
  redis.call('HSET', state, 'learned', learned)
  redis.call('HINCRBY', state, 'consumed', n)
  redis.call('HINCRBY', state, 'kept_bytes', bytes)
  redis.call('RPUSH', KEYS[10], now .. ' ' .. first .. ' ' .. last .. ' ' .. n .. ' ' .. bytes)
else
  park(KEYS[11], 'v' .. version, version, ARGV[13])
end
redis.call('HSET', KEYS[7], version, learned)
redis.call('HINCRBY', state, outcome, 1)
redis.call('HSET', state, 'last_retraining', '{"outcome":"' .. outcome .. '","version":' ..
  version .. ',"finished_at":' .. now .. ',' .. ARGV[12])
finish(state)
audit(KEYS[12], now, held[4] ~= '' and held[4] or 'null', version, ARGV[16])
redis.call('PUBLISH', ARGV[14], ARGV[15])
return {outcome, version}
"""
)

# KEYS: state, lease, stream, parked, audit. ARGV: holder, uid, generation, first, last, vectors,
# bytes, reason, last retraining, channel, name, what the audit says
PARK = Script(
    FENCED
    + _AS_TAKEN
    + FINISH
    + _ADVANCE
    + AUDIT
    + """
local id = 'x' .. last
park(KEYS[4], id, 'null', ARGV[8])
advance(KEYS[3])
redis.call('HINCRBY', state, 'failed', 1)
redis.call('HSET', state, 'last_retraining', '{"outcome":"failed","version":null,"finished_at":' ..
  now .. ',' .. ARGV[9])
finish(state)
audit(KEYS[5], now, '"buffered"', '"parked"', ARGV[12])
redis.call('PUBLISH', ARGV[10], ARGV[11])
return {'parked', id}
"""
)


# KEYS: state, versions, artifacts, artifact, learned, audit
# ARGV: record, sha256, artifact, learned, dimension, channel, name, what the audit says
IMPORT = Script(
    _NUMBER
    + AUDIT
    + NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'uid', 'dimension')
if not held[1] then return {'unknown'} end
if ARGV[5] ~= '' and held[2] ~= '' and held[2] ~= ARGV[5] then
  return {'dimension', tonumber(held[2])}
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'dimension', ARGV[5]) end
local version = number(KEYS[1], now, KEYS[2], KEYS[3], KEYS[4], 'imported', ARGV[1], ARGV[2],
                       ARGV[3])
redis.call('HSET', KEYS[5], version, ARGV[4])
audit(KEYS[6], now, 'null', version, ARGV[8])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return {'imported', version}
"""
)

# KEYS: state, versions, artifacts, history, promoted, learned, parked, erasable, audit, revoked
# ARGV: version, expected generation, who and why, channel, name, what the audit says
CHAMPION = Script(
    MOVE
    + AUDIT
    + NOW
    + """
local state, version = KEYS[1], ARGV[1]
local held = redis.call('HMGET', state, 'uid', 'champion', 'generation')
if not held[1] then return {'unknown'} end
if redis.call('HEXISTS', KEYS[2], version) == 0 then return {'version'} end
if ARGV[2] ~= '' and held[3] ~= ARGV[2] then return {'moved', tonumber(held[3])} end
if held[2] == version then return {'same', tonumber(held[3])} end
if redis.call('HEXISTS', KEYS[10], version) == 1 then return {'revoked'} end
if redis.call('HEXISTS', KEYS[3], version) == 0 then return {'pruned'} end
local generation, from = move(state, now, KEYS[4], KEYS[5], version, ARGV[3])
audit(KEYS[9], now, from, version, ARGV[6])
local entry = redis.call('HGET', KEYS[7], 'v' .. version)
local parked = entry and cjson.decode(entry)
if parked and not parked.decision then  -- one that a person is releasing is not learned
  redis.call('HDEL', KEYS[7], 'v' .. version)
  redis.call('RPUSH', KEYS[8], now .. ' ' .. parked.first .. ' ' .. parked.last .. ' ' ..
    parked.n .. ' ' .. parked.bytes)
  redis.call('HINCRBY', state, 'parked', -parked.n)
  redis.call('HINCRBY', state, 'parked_bytes', -parked.bytes)
  redis.call('HINCRBY', state, 'consumed', parked.n)
  redis.call('HINCRBY', state, 'kept_bytes', parked.bytes)
  redis.call('HINCRBY', KEYS[6], version, parked.n)
end
redis.call('HSET', state, 'learned', redis.call('HGET', KEYS[6], version) or 0)
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'moved on', generation}
"""
)

# KEYS: state, pins. ARGV: version, seconds
PIN = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2])
return redis.call('ZADD', KEYS[2], now, ARGV[1])
""")

# KEYS: state, artifacts, pins, parked, artifact. ARGV: version, sha256, seconds of a pin
PRUNE = Script(
    """
if redis.call('HGET', KEYS[1], 'champion') == ARGV[1]
   or redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2]
   or redis.call('HEXISTS', KEYS[4], 'v' .. ARGV[1]) == 1 then
  return 0
end
local pinned = redis.call('ZSCORE', KEYS[3], ARGV[1])
if pinned and math.abs(redis.call('TIME')[1] - pinned) < tonumber(ARGV[3]) then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
for _, sha256 in ipairs(redis.call('HVALS', KEYS[2])) do
  if sha256 == ARGV[2] then return 1 end
end
redis.call('UNLINK', KEYS[5])
return 1
""",
    flags="allow-oom",
)

# KEYS: state, versions, artifacts, learned, promoted, sources, revoked. ARGV: latest version to
# forget
# From there down, as far as records are: usually one.
FORGET = Script(
    """
local version, looked = tonumber(ARGV[1]), 0
while version > 0 and looked < 100 do
  if redis.call('HEXISTS', KEYS[3], version) == 0
     and redis.call('HDEL', KEYS[2], version) == 1 then
    redis.call('HDEL', KEYS[4], version)
    redis.call('ZREM', KEYS[5], version)
    redis.call('HDEL', KEYS[6], version)
    redis.call('HDEL', KEYS[7], version)
  end
  version, looked = version - 1, looked + 1
end
""",
    flags="allow-oom",
)
