"""Bounds of streams that keep only their latest entries."""

from service.store.script import NamedScript

MAX_BYTES = 64 * 2**20  # the most bytes of one detector's events, and as many of its labels
LEAST_KEPT = 16  # entries that are kept however large they are

# Appends only if the detector still has this `uid`: a late write must not recreate deleted keys.
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
    """Return how many entries of `size` bytes may be kept: `kept` at most, fewer large ones."""
    return max(min(kept, LEAST_KEPT), min(kept, MAX_BYTES // max(size, 1)))


def live_vectors_kept(most: int, d: int) -> int:
    """Return how many live vectors of d features may be kept: `most` at most."""
    return bounded(most, 4 * d)
