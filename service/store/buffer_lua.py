"""The scripts of the buffer: INGEST stores a batch, ENTRIES reads entries."""

from service.store.script import NamedScript

INGEST = NamedScript(
    """
local state, stream, known = KEYS.state, KEYS.stream, KEYS.known
-- The first release kept one answer for all senders. Such an answer is still valid.
if known and redis.call('EXISTS', known) == 0 and redis.call('EXISTS', KEYS.former) == 1 then
  known = KEYS.former
end
local n, d, held_back = tonumber(ARGS.vectors), tonumber(ARGS.dimension), tonumber(ARGS.held)
local bytes = #DATA.kept
local stored = read(state, STATE.uid, STATE.dimension, STATE.buffered, STATE.parked,
                  STATE.buffered_bytes, STATE.parked_bytes, STATE.quarantined,
                  STATE.quarantined_bytes, STATE.cursor, STATE.context)
local uid, dimension = stored[STATE.uid], stored[STATE.dimension]
if not uid then return {'unknown'} end
if known then
  local first = read(known, ANSWER.uid, ANSWER.sha256, ANSWER.answer, ANSWER.buffered)
  if first[ANSWER.uid] == uid then
    if first[ANSWER.sha256] ~= ARGS.sha256 then return {'other'} end
    return {'duplicate', first[ANSWER.answer], tonumber(first[ANSWER.buffered])}
  end
end
-- The context may be chosen already, but unknown to the process that sends raw rows.
local late = ARGS.raw == '1' and stored[STATE.context]
if dimension and dimension ~= '' and tonumber(dimension) ~= d and not late then
  return {'dimension', tonumber(dimension)}
end
local buffered, parked = tonumber(stored[STATE.buffered]), tonumber(stored[STATE.parked])
if n > 0 and (buffered + parked + n > tonumber(ARGS.most)
   or tonumber(stored[STATE.buffered_bytes]) + tonumber(stored[STATE.parked_bytes]) + bytes
      > tonumber(ARGS.most_bytes)) then
  return {'full', buffered, parked}
end
local quarantined = tonumber(stored[STATE.quarantined] or 0)
if held_back > 0 and (quarantined + held_back > tonumber(ARGS.most_held)
   or tonumber(stored[STATE.quarantined_bytes] or 0) + #DATA.held
      > tonumber(ARGS.most_held_bytes)) then
  return {'quarantine full', quarantined}
end
-- `latest` is the cursor at the sender's latest batch, and its novel rows since that cursor.
local latest, others = false, 0
if ARGS.sender ~= '' then
  latest = redis.call('HGET', KEYS.senders, ARGS.sender)
  others = redis.call('HLEN', KEYS.senders) - (latest and 1 or 0)
end
-- If several senders send, none may use more than its share of the quarantine.
if held_back > 0 and others > 0 then
  local waiting = tonumber(redis.call('HGET', KEYS.held_senders, ARGS.sender) or 0)
  if waiting + held_back > tonumber(ARGS.share_held) * tonumber(ARGS.most_held) then
    return {'quarantine share', waiting}
  end
end
local novel, cursor = tonumber(ARGS.novel), stored[STATE.cursor]
if ARGS.sender ~= '' then
  local at, so_far = string.match(latest or '', '^(%S+) (%d+)$')
  if at == cursor then novel = novel + tonumber(so_far) end
  if tonumber(ARGS.novel) > 0 and others > 0
     and novel > tonumber(ARGS.share) * (buffered + n) then
    return {'share'}
  end
  if latest or others < 1000 then
    redis.call('HSET', KEYS.senders, ARGS.sender, cursor .. ' ' .. novel)
  end
end
if n > 0 then
  local id = redis.call('XADD', stream, '*', BATCH.batch, ARGS.batch, BATCH.vectors, n,
                        BATCH.dimension, d, BATCH.sender, ARGS.sender, BATCH.payload, DATA.kept,
                        BATCH.raw, ARGS.raw, BATCH.trace, ARGS.trace)
  if buffered == 0 then redis.call('HSET', state, STATE.oldest, id) end
  if ARGS.labelled == '1' then redis.call('HSET', state, STATE.labelled, id) end
  redis.call('HINCRBY', state, STATE.buffered_bytes, bytes)
  buffered = redis.call('HINCRBY', state, STATE.buffered, n)
end
if held_back > 0 then
  redis.call('XADD', KEYS.held, '*', BATCH.batch, ARGS.batch, BATCH.vectors, held_back,
             BATCH.dimension, d, BATCH.sender, ARGS.sender, BATCH.payload, DATA.held,
             BATCH.judged_by, ARGS.judged_by, BATCH.reason, ARGS.reason,
             BATCH.trace, ARGS.trace)
  redis.call('HINCRBY', state, STATE.quarantined, held_back)
  redis.call('HINCRBY', state, STATE.quarantined_bytes, #DATA.held)
  redis.call('HINCRBY', KEYS.held_senders, ARGS.sender, held_back)
end
if not dimension or dimension == '' then redis.call('HSET', state, STATE.dimension, d) end
if ARGS.thinned ~= '0' then redis.call('HINCRBY', state, STATE.thinned, ARGS.thinned) end
if known then
  redis.call('HSET', KEYS.known, ANSWER.uid, uid, ANSWER.sha256, ARGS.sha256,
             ANSWER.answer, ARGS.answer, ANSWER.buffered, buffered)
  answered()
end
return {'stored', ARGS.answer, buffered}
""",
    keys="state stream held held_senders senders answerers known? former? answers?",
    args="suffix most_answers vectors dimension held sha256 batch sender most most_bytes seconds "
    "judged_by reason most_held most_held_bytes share_held answer thinned novel share labelled raw "
    "trace",
    data="kept held",
)

# The script reads one entry at a time, so that it reads at most one entry too many.
ENTRIES = NamedScript(
    """
local stored = redis.call('HMGET', KEYS.state, STATE.uid, STATE.cursor, STATE.generation,
                        STATE.champion, STATE.dimension, STATE.champion_nonce)
if not stored[1] then return false end
stored[6] = stored[6] or ''
local after = ARGS.after == '' and stored[2] or ARGS.after
local n, bytes, entries = tonumber(ARGS.so_far), 0, {}
while bytes < tonumber(ARGS.most_bytes) and #entries < 1000 do
  local entry = redis.call('XRANGE', KEYS.stream, '(' .. after, '+', 'COUNT', 1)[1]
  if not entry then break end
  local batch = batch_of(entry)
  local size = batch[BATCH.vectors]
  if n >= tonumber(ARGS.least) and n + size > tonumber(ARGS.most) then break end
  n, bytes, after = n + size, bytes + #batch[BATCH.payload], entry[1]
  entries[#entries + 1] = {entry[1], batch[BATCH.batch], size, batch[BATCH.sender],
                           ARGS.rows == '1' and batch[BATCH.payload] or '',
                           batch[BATCH.dimension], batch[BATCH.raw] or '', batch[BATCH.trace] or '',
                           #batch[BATCH.payload]}
end
return {stored, entries}
""",
    keys="state stream",
    args="after so_far least most most_bytes rows",
    flags="no-writes",
)
