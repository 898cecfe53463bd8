"""The scripts that write incidents, people's decisions about them, and dismissed patterns."""

from service.store.lua import FENCED
from service.store.script import NamedScript

# The JSON `changes` refers to a payload by its index among the payloads, from 0. Its lists contain:
# `incidents` [id, order, payload], `rows` [id, payload], `buckets` [chunk, payload], `gone`
# [chunk], `messages` [payload].
SAVE = NamedScript(
    FENCED
    + """
local changes = cjson.decode(ARGS.changes)
local function payload(number) return ARGV[DATA.payload + number] end
redis.call('SET', KEYS.followed, DATA.followed)
for _, one in ipairs(changes.incidents) do
  redis.call('HSET', KEYS.incidents, one[1], payload(one[3]))
  redis.call('ZADD', KEYS.incident_order, 'NX', one[2], one[1])
end
for _, one in ipairs(changes.rows) do
  redis.call('HSET', KEYS.incident_rows, one[1], payload(one[2]))
end
for _, one in ipairs(changes.buckets) do
  redis.call('HSET', KEYS.buckets, one[1], payload(one[2]))
end
for _, chunk in ipairs(changes.gone) do redis.call('HDEL', KEYS.buckets, chunk) end
for _, one in ipairs(changes.messages) do
  redis.call('XADD', KEYS.messages, '*', MESSAGE.packed, payload(one))
end
local over = redis.call('XLEN', KEYS.messages) - tonumber(ARGS.messages_kept)
if over > 0 then
  redis.call('XTRIM', KEYS.messages, 'MAXLEN', ARGS.messages_kept)
  redis.call('HINCRBY', state, STATE.messages_dropped, over)
end
local many = redis.call('ZCARD', KEYS.incident_order)
local function oldest(kept) return redis.call('ZRANGE', KEYS.incident_order, 0, many - kept - 1) end
if many > tonumber(ARGS.rows_kept) then
  redis.call('HDEL', KEYS.incident_rows, unpack(oldest(ARGS.rows_kept)))
end
if many > tonumber(ARGS.incidents_kept) then
  local old = oldest(ARGS.incidents_kept)
  redis.call('HDEL', KEYS.incidents, unpack(old))
  redis.call('HDEL', KEYS.incident_decisions, unpack(old))
  redis.call('ZREM', KEYS.incident_order, unpack(old))
end
redis.call('HSET', state, STATE.incidents_open, ARGS.paging, STATE.incident_rule, ARGS.rule)
redis.call('HSET', state, STATE.incidents_unreported, ARGS.unreported)
redis.call('HINCRBY', state, STATE.incidents_opened, ARGS.opened)
redis.call('HINCRBY', state, STATE.incidents_closed, ARGS.closed)
if ARGS.after ~= '0-0' then redis.call('XTRIM', KEYS.traffic, 'MINID', ARGS.after) end
return {'saved'}
""",
    keys="state lease followed incidents incident_order incident_rows incident_decisions buckets "
    "messages traffic",
    args="holder changes rule paging unreported opened closed after incidents_kept rows_kept "
    "messages_kept",
    data="followed *payload",
)

# Store dismissed patterns. Above the bound the sender with the most patterns loses its oldest ones,
# so that no sender displaces the patterns of others.
_ADD_PATTERN = """
local function add_pattern(id, packed)
  redis.call('HSET', KEYS.dismissed_patterns, id, packed)
  redis.call('ZADD', KEYS.dismissed_order, now, id)
end
local function trim_patterns()
  local ids, senders, count = redis.call('ZRANGE', KEYS.dismissed_order, 0, -1), {}, {}
  local over = #ids - tonumber(ARGS.most)
  if over <= 0 then return end
  for i, id in ipairs(ids) do
    local stored = redis.call('HGET', KEYS.dismissed_patterns, id)
    senders[i] = stored and cmsgpack.unpack(stored).sender or ''
    count[senders[i]] = (count[senders[i]] or 0) + 1
  end
  for _ = 1, over do
    local most
    for i, id in ipairs(ids) do
      if senders[i] and (not most or count[senders[i]] > count[senders[most]]) then most = i end
    end
    redis.call('HDEL', KEYS.dismissed_patterns, ids[most])
    redis.call('ZREM', KEYS.dismissed_order, ids[most])
    count[senders[most]] = count[senders[most]] - 1
    senders[most] = false
  end
end
"""

DECIDE = NamedScript(
    _ADD_PATTERN
    + """
if redis.call('HEXISTS', KEYS.incidents, ARGS.incident) == 0 then return 0 end
redis.call('HSET', KEYS.incident_decisions, ARGS.incident, DATA.decision)
redis.call('HDEL', KEYS.dismissed_patterns, ARGS.incident)
redis.call('ZREM', KEYS.dismissed_order, ARGS.incident)
if DATA.pattern ~= '' then
  add_pattern(ARGS.incident, DATA.pattern)
  trim_patterns()
end
redis.call('HINCRBY', KEYS.state, STATE.decisions, 1)
audit_of(ARGS.who, KEYS.audit, KEYS.hourly, now, 'null', 'null', ARGS.audited)
publish()
return 1
""",
    keys="state incidents incident_decisions dismissed_patterns dismissed_order audit hourly",
    args="incident most who audited",
    data="decision pattern",
)

# `pairs` is a flat list: id, pattern, id, pattern, ...
ADD_PATTERNS = NamedScript(
    _ADD_PATTERN
    + """
if redis.call('EXISTS', KEYS.state) == 0 then return 0 end
for i = DATA.pairs, #ARGV, 2 do add_pattern(ARGV[i], ARGV[i + 1]) end
trim_patterns()
return redis.call('HINCRBY', KEYS.state, STATE.decisions, 1)
""",
    keys="state dismissed_patterns dismissed_order",
    args="most",
    data="*pairs",
)

DELETE_PATTERNS = NamedScript(
    """
local deleted = 0
for i = DATA.ids, #ARGV do
  deleted = deleted + redis.call('HDEL', KEYS.dismissed_patterns, ARGV[i])
  redis.call('ZREM', KEYS.dismissed_order, ARGV[i])
end
if deleted > 0 then redis.call('HINCRBY', KEYS.state, STATE.decisions, 1) end
return deleted
""",
    keys="state dismissed_patterns dismissed_order",
    data="*ids",
)
