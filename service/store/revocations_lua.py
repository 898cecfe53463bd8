"""The scripts of un-learning. Those that write are fenced by a worker's lease."""

from models import MIN_VECTORS
from service.store.connection import Script
from service.store.lua import AUDIT, FENCED, FINISH, MOVE

# KEYS: stream. ARGV: after, most entries, most bytes. Everything but the vectors.
SCAN = Script(
    """
local found, bytes, at = {}, 0, ARGV[1]
while #found < tonumber(ARGV[2]) and bytes < tonumber(ARGV[3]) do
  local entry = redis.call('XRANGE', KEYS[1], '(' .. at, '+', 'COUNT', 1)[1]
  if not entry then break end
  local f = entry[2]
  at, bytes = entry[1], bytes + #f[10]
  found[#found + 1] = {at, f[2], f[8], tonumber(f[4])}
end
return found
""",
    flags="no-writes",
)

# KEYS: state, lease, artifacts, history, promoted, learned, revoked, audit. ARGV: holder, uid,
# generation, last version, champion from now on or '', versions (JSON), mark, who and why,
# channel, name, what the audit says
MARK = Script(
    FENCED
    + MOVE
    + AUDIT
    + """
local held = redis.call('HMGET', state, 'uid', 'generation', 'last_version', 'champion')
local to = ARGV[5]
if held[1] ~= ARGV[2] or held[2] ~= ARGV[3] or held[3] ~= ARGV[4]
   or (to ~= held[4] and to ~= '' and redis.call('HEXISTS', KEYS[3], to) == 0) then
  return {'changed'}
end
for _, version in ipairs(cjson.decode(ARGV[6])) do
  redis.call('HSETNX', KEYS[7], version, '{"at":' .. now .. ',' .. ARGV[7])
end
local generation = tonumber(held[2])
if to ~= held[4] then
  generation = move(state, now, KEYS[4], KEYS[5], to, ARGV[8])
  redis.call('HSET', state, 'learned', to ~= '' and redis.call('HGET', KEYS[6], to) or 0)
end
audit(KEYS[8], now, held[4] ~= '' and held[4] or 'null', to ~= '' and to or 'null', ARGV[11])
redis.call('PUBLISH', ARGV[9], ARGV[10])
return {'marked', generation}
"""
)

# KEYS: state, lease, stream or held, parked. ARGV: holder, milliseconds of lease, 'stream' or
# 'held', after, index of the field that tells the culprit, its id, ranges to relearn (JSON),
# most entries, most bytes
SWEEP = Script(
    FENCED
    + FINISH
    + f"local least = {MIN_VECTORS}"
    + """
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local entries, held_back = KEYS[3], ARGV[3] == 'held'
local cursor, again, parked = redis.call('HGET', state, 'cursor'), cjson.decode(ARGV[7]), {}
for i, text in ipairs(redis.call('HVALS', KEYS[4])) do parked[i] = cjson.decode(text) end
local function after(a, b)
  local at, an = string.match(a, '^(%d+)-(%d+)$')
  local bt, bn = string.match(b, '^(%d+)-(%d+)$')
  at, bt = tonumber(at), tonumber(bt)
  return at > bt or (at == bt and tonumber(an) > tonumber(bn))
end
local function inside(id, first, last) return after(id, first) and not after(id, last) end
local function place(id)
  if held_back then return 'quarantined' end
  if after(id, cursor) then return 'buffered' end
  for _, one in ipairs(parked) do
    if inside(id, one.first, one.last) then return 'parked', one end
  end
  return 'kept'
end
local function relearned(id)
  for _, range in ipairs(again) do if inside(id, range[1], range[2]) then return true end end
end
local at, seen, bytes, done = ARGV[4], 0, 0, false
local gone, back = {buffered = 0, quarantined = 0, parked = 0, kept = 0}, {}
while seen < tonumber(ARGV[8]) and bytes < tonumber(ARGV[9]) do
  local entry = redis.call('XRANGE', entries, '(' .. at, '+', 'COUNT', 1)[1]
  if not entry then done = true break end
  local f = entry[2]
  local n, size, where, home = tonumber(f[4]), #f[10], place(entry[1])
  at, seen, bytes = entry[1], seen + 1, bytes + size
  if f[tonumber(ARGV[5])] == ARGV[6] then
    redis.call('XDEL', entries, at)
    redis.call('HINCRBY', state, where .. '_bytes', -size)
    if where ~= 'kept' then
      redis.call('HINCRBY', state, where, -n)
      redis.call('HINCRBY', state, 'discarded', n)
    end
    if home then
      home.n, home.bytes = home.n - n, home.bytes - size
      if home.n > 0 then
        redis.call('HSET', KEYS[4], home.id, cjson.encode(home))
      else
        redis.call('HDEL', KEYS[4], home.id)
      end
    end
    gone[where] = gone[where] + n
  elseif where == 'kept' and relearned(at) then
    redis.call('XADD', entries, '*', unpack(f))
    redis.call('XDEL', entries, at)
    redis.call('HINCRBY', state, 'buffered', n)
    redis.call('HINCRBY', state, 'buffered_bytes', size)
    redis.call('HINCRBY', state, 'kept_bytes', -size)
    redis.call('HINCRBY', state, 'consumed', -n)
    back[#back + 1] = {f[2], f[8], n}
  end
end
if not held_back then
  local rest = redis.call('XRANGE', entries, '(' .. cursor, '+', 'COUNT', 1)[1]
  redis.call('HSET', state, 'oldest', rest and rest[1] or '')
  local now_held = redis.call('HMGET', state, 'retraining', 'buffered')
  if done and now_held[1] ~= 'idle' and tonumber(now_held[2]) < least then finish(state) end
end
return {done and 'done' or 'more', at, gone.buffered, gone.quarantined, gone.parked, gone.kept,
        back}
"""
)
