"""Bounds of streams that keep only their latest entries."""

MAX_BYTES = 64 * 2**20  # the most bytes of one detector's events, and as many of its labels
LEAST_KEPT = 16  # entries that are kept however large they are


def bounded(kept: int, size: int) -> int:
    """Return how many entries of `size` bytes may be kept: `kept` at most, fewer large ones."""
    return max(min(kept, LEAST_KEPT), min(kept, MAX_BYTES // max(size, 1)))


def live_vectors_kept(most: int, d: int) -> int:
    """Return how many live vectors of d features may be kept: `most` at most."""
    return bounded(most, 4 * d)
