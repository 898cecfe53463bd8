"""The scripts of un-learning. A script that writes is fenced by a worker's lease."""

from models import MIN_VECTORS
from service.store.lua import FENCED
from service.store.script import NamedScript

# Returns every entry without its vectors.
SCAN = NamedScript(
    """
local found, bytes, at = {}, 0, ARGS.after
while #found < tonumber(ARGS.most) and bytes < tonumber(ARGS.most_bytes) do
  local entry = redis.call('XRANGE', KEYS.entries, '(' .. at, '+', 'COUNT', 1)[1]
  if not entry then break end
  local batch = batch_of(entry)
  at, bytes = entry[1], bytes + #batch[BATCH.payload]
  found[#found + 1] = {at, batch[BATCH.batch], batch[BATCH.sender], batch[BATCH.vectors]}
end
return found
""",
    keys="entries",
    args="after most most_bytes",
    flags="no-writes",
)

MARK = NamedScript(
    FENCED
    + """
local stored = read(state, STATE.uid, STATE.generation, STATE.last_version, STATE.champion)
local from, to = stored[STATE.champion], ARGS.to
if stored[STATE.uid] ~= ARGS.uid or stored[STATE.generation] ~= ARGS.generation
   or stored[STATE.last_version] ~= ARGS.last_version
   or (to ~= from and to ~= '' and redis.call('HEXISTS', KEYS.artifacts, to) == 0) then
  return {'changed'}
end
for _, version in ipairs(cjson.decode(ARGS.versions)) do
  redis.call('HSETNX', KEYS.revoked, version, '{"at":' .. now .. ',' .. ARGS.mark)
end
local generation = tonumber(stored[STATE.generation])
if to ~= from then
  generation = move(to, ARGS.why)
  redis.call('HSET', state, STATE.learned, to ~= '' and redis.call('HGET', KEYS.learned, to) or 0)
end
from, to = from ~= '' and from or 'null', to ~= '' and to or 'null'
if ARGS.decision == '1' then
  audit_of(ARGS.who, KEYS.audit, KEYS.hourly, now, from, to, ARGS.audited)
else
  audit(KEYS.audit, now, from, to, ARGS.audited)
end
publish()
return {'marked', generation}
""",
    keys="state lease artifacts history promoted learned revoked audit hourly",
    args="holder uid generation last_version to versions mark why nonce decision who audited",
)

# `field` names the field that holds the target's id: `batch` or `sender`.
SWEEP = NamedScript(
    FENCED
    + f"local least = {MIN_VECTORS}"
    + """
redis.call('PEXPIRE', KEYS.lease, ARGS.milliseconds)
local entries, held_back = KEYS.entries, ARGS.place == 'held'
local field = ARGS.field == 'batch' and BATCH.batch or BATCH.sender
local cursor, again = redis.call('HGET', state, STATE.cursor), cjson.decode(ARGS.again)
local parked = {}
for i, text in ipairs(redis.call('HVALS', KEYS.parked)) do parked[i] = cjson.decode(text) end
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
local at, seen, bytes, done = ARGS.after, 0, 0, false
local gone, back = {buffered = 0, quarantined = 0, parked = 0, kept = 0}, {}
while seen < tonumber(ARGS.most) and bytes < tonumber(ARGS.most_bytes) do
  local entry = redis.call('XRANGE', entries, '(' .. at, '+', 'COUNT', 1)[1]
  if not entry then done = true break end
  local batch = batch_of(entry)
  local n, size = batch[BATCH.vectors], #batch[BATCH.payload]
  local where, home = place(entry[1])
  at, seen, bytes = entry[1], seen + 1, bytes + size
  if batch[field] == ARGS.target then
    redis.call('XDEL', entries, at)
    redis.call('HINCRBY', state, where .. '_bytes', -size)
    if where ~= 'kept' then
      redis.call('HINCRBY', state, where, -n)
      redis.call('HINCRBY', state, STATE.discarded, n)
    end
    if home then
      home.n, home.bytes = home.n - n, home.bytes - size
      if home.n > 0 then
        redis.call('HSET', KEYS.parked, home.id, cjson.encode(home))
      else
        redis.call('HDEL', KEYS.parked, home.id)
      end
    end
    if held_back then subtract_held(KEYS.held_senders, batch[BATCH.sender], n) end
    gone[where] = gone[where] + n
  elseif where == 'kept' and relearned(at) then
    redis.call('XADD', entries, '*', unpack(entry[2]))
    redis.call('XDEL', entries, at)
    redis.call('HINCRBY', state, STATE.buffered, n)
    redis.call('HINCRBY', state, STATE.buffered_bytes, size)
    redis.call('HINCRBY', state, STATE.kept_bytes, -size)
    redis.call('HINCRBY', state, STATE.consumed, -n)
    back[#back + 1] = {batch[BATCH.batch], batch[BATCH.sender], n}
  end
end
if not held_back then
  note_oldest(entries, cursor)
  local after_all = read(state, STATE.retraining, STATE.buffered)
  if done and after_all[STATE.retraining] ~= 'idle'
     and tonumber(after_all[STATE.buffered]) < least then
    finish()
  end
end
return {done and 'done' or 'more', at, gone.buffered, gone.quarantined, gone.parked, gone.kept,
        back}
""",
    keys="state lease entries parked held_senders",
    args="holder milliseconds place after field target again most most_bytes",
)
