"""Bounds of streams that keep only their latest entries."""

from service.store.script import NamedScript

MAX_BYTES = 64 * 2**20  # of one detector's events, and of its labels: wide vectors are kept fewer

LEAST_KEPT = 16

# Only for that incarnation: a late writer must not leave keys behind a deleted detector.
APPEND = NamedScript(
    """
if redis.call('HGET', KEYS.state, STATE.uid) ~= ARGS.uid then return {} end
local ids = {}
for i = DATA.entries, #ARGV do
  ids[#ids + 1] =
    redis.call('XADD', KEYS.stream, 'MAXLEN', ARGS.most, '*', ENTRY.packed, ARGV[i])
end
return ids
""",
    keys="state stream",
    args="uid most",
    data="*entries",
)


def bounded(kept: int, size: int) -> int:
    """Return how many entries of `size` bytes are kept, `kept` at most."""
    return max(min(kept, LEAST_KEPT), min(kept, MAX_BYTES // max(size, 1)))


def kept(most: int, d: int) -> int:
    """Return how many live vectors of d features are kept where `most` are asked for."""
    return bounded(most, 4 * d)
