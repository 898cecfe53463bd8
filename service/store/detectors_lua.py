"""The scripts that make, configure and delete detectors, and ask them to retrain."""

from service.store.script import NamedScript

CREATE = NamedScript(
    """
if redis.call('EXISTS', KEYS.state) == 1 then return 0 end
local fresh = {
  STATE.format, 1, STATE.uid, ARGS.uid, STATE.config, ARGS.config, STATE.created, now,
  STATE.dimension, ARGS.dimension, STATE.revision, 1, STATE.config_nonce, ARGS.nonce,
  STATE.changed, now, STATE.champion, '', STATE.cursor, '0-0', STATE.oldest, '',
  STATE.retraining, 'idle'}
for _, counter in ipairs({
  STATE.generation, STATE.last_version, STATE.buffered, STATE.buffered_bytes, STATE.parked,
  STATE.parked_bytes, STATE.quarantined, STATE.quarantined_bytes, STATE.consumed,
  STATE.discarded, STATE.thinned, STATE.learned, STATE.kept_bytes, STATE.requested,
  STATE.serving, STATE.served, STATE.attempts}) do
  fresh[#fresh + 1] = counter
  fresh[#fresh + 1] = 0
end
redis.call('HSET', KEYS.state, unpack(fresh))
redis.call('PERSIST', KEYS.audit)
audit(KEYS.audit, now, 'null', ARGS.config, ARGS.audited)
publish()
return 1
""",
    keys="state audit",
    args="uid config dimension nonce audited",
)

# The arguments `was_...` describe the state on which the change was decided. A config that is the
# `same` makes no new revision, but its time is noted. So every process follows it, even a process
# that serves a later state, which the restored store lost.
CONFIGURE = NamedScript(
    """
local stored = read(KEYS.state, STATE.uid, STATE.revision, STATE.config_nonce, STATE.dimension,
                  STATE.buffered, STATE.parked, STATE.last_version, STATE.generation, STATE.config)
local full = tonumber(stored[STATE.buffered] or 0) + tonumber(stored[STATE.parked] or 0)
  + tonumber(stored[STATE.last_version] or 0) > 0
if stored[STATE.uid] ~= ARGS.uid or stored[STATE.revision] ~= ARGS.was_revision
   or (stored[STATE.config_nonce] or '') ~= ARGS.was_nonce
   or stored[STATE.generation] ~= ARGS.was_generation
   or stored[STATE.dimension] ~= ARGS.was_dimension or (full and '1' or '0') ~= ARGS.was_full then
  return 0
end
if ARGS.same == '1' then
  redis.call('HSET', KEYS.state, STATE.changed, now)
  publish()
  return 1
end
redis.call('HSET', KEYS.state, STATE.config, ARGS.config, STATE.dimension, ARGS.dimension,
           STATE.config_nonce, ARGS.nonce, STATE.changed, now)
redis.call('HINCRBY', KEYS.state, STATE.revision, 1)
audit(KEYS.audit, now, stored[STATE.config], ARGS.config, ARGS.audited)
publish()
return 1
""",
    keys="state audit",
    args="uid was_revision was_nonce was_dimension was_full was_generation same config dimension "
    "nonce audited",
)

REQUEST = NamedScript(
    """
local stored = read(KEYS.state, STATE.uid, STATE.buffered, STATE.parked, STATE.retraining)
local buffered, was = tonumber(stored[STATE.buffered]), stored[STATE.retraining]
if not stored[STATE.uid] then return {'unknown'} end
if buffered < tonumber(ARGS.least) then
  return {'few', buffered, tonumber(stored[STATE.parked])}
end
redis.call('HSET', KEYS.state, STATE.weights, ARGS.weights, STATE.requested_trace, ARGS.trace)
if was == 'idle' then redis.call('HSET', KEYS.state, STATE.retraining, 'queued') end
audit(KEYS.audit, now, '"' .. was .. '"', '"queued"', ARGS.audited)
publish()
return {'queued', redis.call('HINCRBY', KEYS.state, STATE.requested, 1)}
""",
    keys="state audit",
    args="least weights trace audited",
)

# The detector's other keys follow the three named keys. If a version was made in the meantime, the
# key of its artifact is missing here. Then nothing is deleted, and the caller starts again.
DELETE = NamedScript(
    """
local stored = read(KEYS.state, STATE.uid, STATE.last_version, STATE.generation)
if stored[STATE.uid] ~= ARGS.uid or stored[STATE.last_version] ~= ARGS.last_version
   or (stored[STATE.generation] or '') ~= ARGS.generation then return 0 end
redis.call('UNLINK', KEYS.state)
for i = 4, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('SET', KEYS.tombstone, ARGS.uid, 'EX', ARGS.seconds)
audit(KEYS.audit, now, ARGS.last_version, 'null', ARGS.audited)
redis.call('EXPIRE', KEYS.audit, ARGS.seconds)
publish()
return 1
""",
    keys="state tombstone audit",
    args="uid last_version generation seconds audited",
    flags="allow-oom",
)

MUTE = NamedScript(
    """
if redis.call('EXISTS', KEYS.state) == 0 then return false end
local before = redis.call('HGET', KEYS.state, STATE.muted_until) or 0
redis.call('HSET', KEYS.state, STATE.muted_until, ARGS.ends, STATE.muted_why, ARGS.why,
           STATE.muted_by, ARGS.who)
redis.call('HINCRBY', KEYS.state, STATE.decisions, 1)
audit(KEYS.audit, now, before, ARGS.ends, ARGS.audited)
publish()
return true
""",
    keys="state audit",
    args="ends why who audited",
)

# Takes any number of keys. The answers of a later detector of the same name stay.
FORGET_ANSWERS = NamedScript(
    """
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, ANSWER.uid) == ARGS.uid then redis.call('UNLINK', key) end
end
""",
    keys="",
    args="uid",
    flags="allow-oom",
)
