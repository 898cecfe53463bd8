"""Bounds how often something happens."""


class TokenBucket:
    """A token bucket: `rate` tokens a second, and at most `most` at once (at least one)."""

    __slots__ = ("_most", "_rate", "_since", "_tokens")

    def __init__(self, rate: float, now: float, most: float | None = None) -> None:
        self._rate = rate
        self._most = self._tokens = max(1.0, rate if most is None else most)
        self._since = now

    def wait(self, now: float) -> float:
        """Take a token and return 0; without a token, return the seconds until the next one."""
        self._tokens = min(self._most, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0
