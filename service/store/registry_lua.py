"""The registry's scripts. Each script makes all its checks before its first write."""

from service.store.lua import FENCED
from service.store.script import NamedScript

# SETTLE and PARK check that the detector and its cursor are as they were when the experience was
# taken from the buffer.
_TAKEN = "holder uid cursor last vectors bytes"
_AS_TAKEN = """
local stored = read(state, STATE.uid, STATE.generation, STATE.cursor, STATE.champion, STATE.learned,
                  STATE.champion_nonce)
if stored[STATE.uid] ~= ARGS.uid then return {'fenced', 'the detector is another one'} end
if stored[STATE.cursor] ~= ARGS.cursor then return {'fenced', 'the cursor moved'} end
local n, bytes = tonumber(ARGS.vectors), tonumber(ARGS.bytes)
"""

_ADVANCE = """
local function advance()
  redis.call('HINCRBY', state, STATE.buffered, -n)
  redis.call('HINCRBY', state, STATE.buffered_bytes, -bytes)
  redis.call('HSET', state, STATE.cursor, ARGS.last)
  note_oldest(KEYS.stream, ARGS.last)
end
local function park(id, version, reason)
  redis.call('HSET', KEYS.parked, id, '{"id":"' .. id .. '","kind":"experience","first":"' ..
    ARGS.cursor .. '","last":"' .. ARGS.last .. '","n":' .. n .. ',"bytes":' .. bytes ..
    ',"version":' .. version .. ',"parked":' .. now .. ',"reason":' .. reason .. '}')
  redis.call('HINCRBY', state, STATE.parked, n)
  redis.call('HINCRBY', state, STATE.parked_bytes, bytes)
end
"""

_NUMBER = """
local function number(outcome)
  local version = redis.call('HINCRBY', KEYS.state, STATE.last_version, 1)
  redis.call('HSET', KEYS.versions, version, '{"format":1,"version":' .. version ..
    ',"outcome":"' .. outcome .. '","created":' .. now .. ',' .. ARGS.record)
  redis.call('HSET', KEYS.artifacts, version, ARGS.sha256)
  if redis.call('EXISTS', KEYS.artifact) == 0 then
    redis.call('SET', KEYS.artifact, DATA.artifact)
  end
  return version
end
"""

SETTLE = NamedScript(
    FENCED
    + _AS_TAKEN
    + """
if stored[STATE.generation] ~= ARGS.generation
   or (stored[STATE.champion_nonce] or '') ~= ARGS.champion_nonce then
  return {'fenced', 'the champion moved'}
end
"""
    + _ADVANCE
    + _NUMBER
    + """
local outcome, learned = ARGS.outcome, tonumber(stored[STATE.learned])
local version = number(outcome)
redis.call('HSET', KEYS.sources, version, DATA.sources)
advance()
if outcome == 'promoted' then
  learned = learned + n
  move(version, '"who":"worker","why":"retraining"}')
  redis.call('HSET', state, STATE.learned, learned)
  redis.call('HINCRBY', state, STATE.consumed, n)
  redis.call('HINCRBY', state, STATE.kept_bytes, bytes)
  redis.call('RPUSH', KEYS.erasable,
             now .. ' ' .. ARGS.cursor .. ' ' .. ARGS.last .. ' ' .. n .. ' ' .. bytes)
else
  park('v' .. version, version, ARGS.reason)
end
if ARGS.context ~= '' then
  redis.call('HSET', state, STATE.context, ARGS.context, STATE.dimension, ARGS.dimension)
end
redis.call('HSET', KEYS.learned, version, learned)
redis.call('HINCRBY', state, outcome, 1)
redis.call('HSET', state, STATE.last_retraining, '{"outcome":"' .. outcome .. '","version":' ..
  version .. ',"finished_at":' .. now .. ',' .. ARGS.ending)
finish()
local champion = stored[STATE.champion]
audit(KEYS.audit, now, champion ~= '' and champion or 'null', version, ARGS.audited)
publish()
return {outcome, version}
""",
    keys="state lease stream versions artifacts artifact learned history promoted erasable parked "
    "audit sources",
    args=f"{_TAKEN} generation champion_nonce nonce outcome record sha256 ending reason audited "
    "context dimension",
    data="artifact sources",
)

PARK = NamedScript(
    FENCED
    + _AS_TAKEN
    + _ADVANCE
    + """
local id = 'x' .. ARGS.last
park(id, 'null', ARGS.reason)
advance()
redis.call('HINCRBY', state, STATE.failed, 1)
redis.call('HSET', state, STATE.last_retraining,
           '{"outcome":"failed","version":null,"finished_at":' .. now .. ',' .. ARGS.ending)
finish()
audit(KEYS.audit, now, '"buffered"', '"parked"', ARGS.audited)
publish()
return {'parked', id}
""",
    keys="state lease stream parked audit",
    args=f"{_TAKEN} reason ending audited",
)

IMPORT = NamedScript(
    _NUMBER
    + """
local stored = read(KEYS.state, STATE.uid, STATE.dimension, STATE.context)
local dimension = stored[STATE.dimension]
if ARGS.context ~= '' and not stored[STATE.context] then
  redis.call('HSET', KEYS.state, STATE.context, ARGS.context)
  dimension = ''
end
if not stored[STATE.uid] then return {'unknown'} end
if ARGS.dimension ~= '' and dimension ~= '' and dimension ~= ARGS.dimension then
  return {'dimension', tonumber(dimension)}
end
if ARGS.dimension ~= '' then redis.call('HSET', KEYS.state, STATE.dimension, ARGS.dimension) end
local version = number('imported')
redis.call('HSET', KEYS.learned, version, ARGS.learned)
audit(KEYS.audit, now, 'null', version, ARGS.audited)
publish()
return {'imported', version}
""",
    keys="state versions artifacts artifact learned audit",
    args="record sha256 learned dimension context audited",
    data="artifact",
)

CHAMPION = NamedScript(
    """
local state, version = KEYS.state, ARGS.version
local stored = read(state, STATE.uid, STATE.champion, STATE.generation)
local generation = stored[STATE.generation]
if not stored[STATE.uid] then return {'unknown'} end
if redis.call('HEXISTS', KEYS.versions, version) == 0 then return {'version'} end
if ARGS.expected ~= '' and generation ~= ARGS.expected then
  return {'moved', tonumber(generation)}
end
if stored[STATE.champion] == version then
  -- A process that serves a state which the restored store lost follows only a later change.
  redis.call('HSET', state, STATE.changed, now)
  publish()
  return {'same', tonumber(generation)}
end
if redis.call('HEXISTS', KEYS.revoked, version) == 1 then return {'revoked'} end
if redis.call('HEXISTS', KEYS.artifacts, version) == 0 then return {'pruned'} end
local moved, from = move(version, ARGS.why)
audit(KEYS.audit, now, from, version, ARGS.audited)
local entry = redis.call('HGET', KEYS.parked, 'v' .. version)
local parked = entry and cjson.decode(entry)
-- A person may be releasing or discarding the experience: then it does not count as learned.
if parked and not parked.decision then
  redis.call('HDEL', KEYS.parked, 'v' .. version)
  redis.call('RPUSH', KEYS.erasable, now .. ' ' .. parked.first .. ' ' .. parked.last .. ' ' ..
    parked.n .. ' ' .. parked.bytes)
  redis.call('HINCRBY', state, STATE.parked, -parked.n)
  redis.call('HINCRBY', state, STATE.parked_bytes, -parked.bytes)
  redis.call('HINCRBY', state, STATE.consumed, parked.n)
  redis.call('HINCRBY', state, STATE.kept_bytes, parked.bytes)
  redis.call('HINCRBY', KEYS.learned, version, parked.n)
end
redis.call('HSET', state, STATE.learned, redis.call('HGET', KEYS.learned, version) or 0)
publish()
return {'moved on', moved}
""",
    keys="state versions artifacts history promoted learned parked erasable audit revoked",
    args="version expected nonce why audited",
)

PIN = NamedScript(
    """
if redis.call('EXISTS', KEYS.state) == 0 then return 0 end
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS.pins, '-inf', now - ARGS.seconds)
return redis.call('ZADD', KEYS.pins, now, ARGS.version)
""",
    keys="state pins",
    args="version seconds",
)

PRUNE = NamedScript(
    """
if redis.call('HGET', KEYS.state, STATE.champion) == ARGS.version
   or redis.call('HGET', KEYS.artifacts, ARGS.version) ~= ARGS.sha256
   or redis.call('HEXISTS', KEYS.parked, 'v' .. ARGS.version) == 1 then
  return 0
end
local pinned = redis.call('ZSCORE', KEYS.pins, ARGS.version)
if pinned and math.abs(redis.call('TIME')[1] - pinned) < tonumber(ARGS.seconds) then
  return 0
end
redis.call('ZREM', KEYS.pins, ARGS.version)
redis.call('HDEL', KEYS.artifacts, ARGS.version)
for _, sha256 in ipairs(redis.call('HVALS', KEYS.artifacts)) do
  if sha256 == ARGS.sha256 then return 1 end
end
redis.call('UNLINK', KEYS.artifact)
return 1
""",
    keys="state artifacts pins parked artifact",
    args="version sha256 seconds",
    flags="allow-oom",
)

# Deletes old records without an artifact, from version `latest` down, 100 versions at most.
FORGET = NamedScript(
    """
local version, looked = tonumber(ARGS.latest), 0
while version > 0 and looked < 100 do
  if redis.call('HEXISTS', KEYS.artifacts, version) == 0
     and redis.call('HDEL', KEYS.versions, version) == 1 then
    redis.call('HDEL', KEYS.learned, version)
    redis.call('ZREM', KEYS.promoted, version)
    redis.call('HDEL', KEYS.sources, version)
    redis.call('HDEL', KEYS.revoked, version)
  end
  version, looked = version - 1, looked + 1
end
""",
    keys="versions artifacts learned promoted sources revoked",
    args="latest",
    flags="allow-oom",
)
