"""Bounds of streams that keep only their latest entries."""

from service.store.connection import Script

MAX_BYTES = 64 * 2**20  # of one detector's events, and of its labels: wide vectors are kept fewer

LEAST_KEPT = 16

# KEYS: state, stream. ARGV: uid, most entries, entry...
# Only for that incarnation: a late writer must not leave keys behind a deleted detector.
APPEND = Script("""
if redis.call('HGET', KEYS[1], 'uid') ~= ARGV[1] then return {} end
local ids = {}
for i = 3, #ARGV do
  ids[#ids + 1] = redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'e', ARGV[i])
end
return ids
""")


def bounded(kept: int, size: int) -> int:
    """Return how many entries of `size` bytes are kept, `kept` at most."""
    return max(min(kept, LEAST_KEPT), min(kept, MAX_BYTES // max(size, 1)))


def kept(most: int, d: int) -> int:
    """Return how many live vectors of d features are kept where `most` are asked for."""
    return bounded(most, 4 * d)
