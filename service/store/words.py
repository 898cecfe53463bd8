"""The words of a detector's categories by code. Rows hold codes; versions need the words."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from service.store.connection import ask
from service.store.redis_keys import Keys
from service.store.script import NamedScript

MOST = 10_000  # words of one detector; a version learns 256 for each column
_KNOWN = 100_000  # words that this process remembers as written

_ADD = NamedScript(
    """
if read(KEYS.state, STATE.uid)[STATE.uid] ~= ARGS.uid then return 0 end
local room = tonumber(ARGS.most) - redis.call('HLEN', KEYS.words)
for i = DATA.pairs, #ARGV, 2 do
  if room > 0 then room = room - redis.call('HSETNX', KEYS.words, ARGV[i], ARGV[i + 1]) end
end
return 1
""",
    keys="state words",
    args="uid most",
    data="*pairs",
)


class Words:
    """Keeps up to MOST words of every detector."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._written: set[tuple[str, float]] = set()

    async def add(self, name: str, uid: str, words: Mapping[float, str]) -> None:
        """Store the words by code for the detector with this `uid`; raises StoreUnavailable."""
        new = [code for code in words if (uid, code) not in self._written]
        if not new:
            return
        pairs = [part for code in new for part in (str(int(code)).encode(), words[code].encode())]
        await _ADD(self._redis, Keys(name), {"uid": uid, "most": MOST}, pairs)
        if len(self._written) > _KNOWN:
            self._written.clear()
        self._written.update((uid, code) for code in new)

    async def all(self, name: str) -> dict[float, str]:
        """Return every kept word by its code."""
        words = await ask(self._redis, self._redis.hgetall(Keys(name).words))
        return {float(code): word.decode() for code, word in words.items()}
