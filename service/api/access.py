"""What each API key allows. Held in memory, at most one poll behind the store."""

import asyncio
import hmac
import math
import time
from collections.abc import Iterable

from service import log
from service.domain import session
from service.domain.api_key import ANYONE, Grant, digest, identity
from service.domain.scope import Scope
from service.domain.token_bucket import TokenBucket
from service.problems import (
    Forbidden,
    StoreUnavailable,
    TooManyRequests,
    Unauthenticated,
    UnknownDetector,
)
from service.reread import Reread
from service.store.api_keys import ApiKeys, KeyTableState

_log = log.get(__name__)

_REMEMBERED = 4096  # most headers whose grant is cached
_LONGEST = 512  # bytes; a longer header cannot hold a key and is not hashed


class Access:
    """Decides whether a header carries a valid API key, and what that key allows.

    `in_files` are the keys from files, which the store does not hold. With no keys at all every
    request is allowed if `may_be_open`. Once any key has been seen, keys are required for good.
    Until the store has been read, requests without a key are allowed only if `insecure`.
    """

    def __init__(
        self, in_files: Iterable[Grant] = (), *, may_be_open: bool, insecure: bool = False
    ) -> None:
        self._in_files = {grant.id: grant for grant in in_files}
        self._grants = dict(self._in_files)
        self._guarded = bool(self._in_files) or not (may_be_open or insecure)
        self._insecure = insecure
        self._state: KeyTableState | None = None  # None until the store has been read
        # An older state that the store returned to, because it lost keys. It is not adopted.
        self._older_state: KeyTableState | None = None
        self._ended_sessions = frozenset[str]()
        self._buckets: dict[str, TokenBucket] = {}
        # The grant of each whole header; None stands for a missing header. Python's hash of bytes
        # is seeded at random in each process, and bytes are compared only if all 64 bits of the
        # hash agree. So the time of a look-up does not show how much of a guessed key is right.
        self._remembered: dict[bytes | None, Grant] = {}
        self._reading = asyncio.Lock()  # a slow read must not replace a newer one

    # Checking keys

    @property
    def guarded(self) -> bool:
        """Whether every request needs a key."""
        return self._guarded

    @property
    def informed(self) -> bool:
        """Whether the keys of the store have been read."""
        return self._state is not None

    def holds(self, grant: Grant) -> bool:
        """Return whether a grant that a request got earlier is still valid."""
        return self._grants.get(grant.id) == grant if self._guarded else grant == ANYONE

    def grant_for(self, authorization: bytes | None) -> Grant | None:
        """Return what the key in the `Authorization` header allows, None for an unknown key."""
        if not self._guarded and (self._state is not None or self._insecure):
            return ANYONE
        grant = self._remembered.get(authorization)
        if grant is None:
            grant = self._look_up(authorization)
            if grant is not None:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[authorization] = grant
        return grant

    def _look_up(self, authorization: bytes | None) -> Grant | None:
        if authorization is None or len(authorization) > _LONGEST:
            return None
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        presented = digest(secret.strip())
        grant = self._grants.get(identity(presented))
        if grant is None or not hmac.compare_digest(grant.digest, presented):
            return None
        return grant

    def authenticate(self, authorization: bytes | None) -> Grant:
        """Return what the key in the `Authorization` header allows, and count the request.

        Raises Unauthenticated, StoreUnavailable or TooManyRequests.
        """
        grant = self.grant_for(authorization)
        if grant is not None:
            return self.with_rate_token(grant)
        if not self.informed and (authorization is not None or not self._guarded):
            raise StoreUnavailable("The store holds the API keys, and it has not answered yet.")
        raise Unauthenticated(sent=authorization is not None)

    def of_session(self, cookie: str) -> Grant | None:
        """Return what the key of a session's cookie allows, None if no such session is open."""
        grant = self._grants.get(session.holder(cookie) or "")
        if (
            grant is None
            or not session.is_valid(cookie, grant, time.time())
            or session.name(cookie) in self._ended_sessions
        ):
            return None
        return grant

    def with_rate_token(self, grant: Grant) -> Grant:
        """Count a request of the key, and return `grant`. Raises TooManyRequests."""
        if wait := self.seconds_to_wait(grant):
            seconds = {"Retry-After": str(math.ceil(wait))}
            raise TooManyRequests(
                "The API key has used up its rate. Wait as long as `Retry-After` says.",
                headers=seconds,
            )
        return grant

    def seconds_to_wait(self, grant: Grant) -> float:
        """Count a request of the key.

        Returns 0.0 if the key's rate allows the request, or the seconds to wait until it does.
        """
        rate = grant.requests_per_second
        if rate is None:
            return 0.0
        now = time.monotonic()
        bucket = self._buckets.get(grant.id)
        if bucket is None:
            bucket = self._buckets[grant.id] = TokenBucket(rate, now)
        return bucket.wait(now)

    def admit(self, authorization: bytes | None, detector: str) -> Grant | None:
        """Return the key's grant if it allows scoring with the detector now, else None.

        An allowed request is counted.
        """
        grant = self.grant_for(authorization)
        if (
            grant is None
            or Scope.SCORE not in grant.scopes
            or not grant.covers(detector)
            or self.seconds_to_wait(grant)
        ):
            return None
        return grant

    # Polling the store

    async def run(self, keys: ApiKeys, in_files: Reread[list[Grant]], seconds: float) -> None:
        """Read the keys of the store and of files every so many seconds until cancelled."""
        while True:
            if in_files.refresh():
                self.replace_keys_in_files(in_files.value)
            # If this task ended, revoked keys would stay valid. While the store is away, the keys
            # in memory stay valid, and the watcher reports it.
            with log.tolerated(
                _log, "reading the API keys failed; it is tried again", StoreUnavailable
            ):
                await self.refresh(keys)
            await asyncio.sleep(seconds)

    async def refresh(self, keys: ApiKeys) -> None:
        """Read the keys if they have changed. Raises StoreUnavailable."""
        async with self._reading:
            await self._refresh(keys)

    async def _refresh(self, keys: ApiKeys) -> None:
        state = await keys.state()
        if state in (self._state, self._older_state):
            return
        if self._state is not None and self._older_state is None and state.older(self._state):
            # The store was emptied, or restored from a backup. This revokes no key: the keys in
            # memory stay valid until the next change in the store.
            self._older_state = state
            _log.error(
                "the store lost API keys; the keys in memory stay valid", revision=state.revision
            )
            return
        state, grants = await keys.read()
        # Read after the state: a logout in between changes the state, so that it is read again.
        self._ended_sessions = await keys.ended_sessions()
        self.adopt(state, grants)

    def replace_keys_in_files(self, grants: Iterable[Grant]) -> None:
        """Replace the keys from files by `grants`."""
        others = {name: grant for name, grant in self._grants.items() if name not in self._in_files}
        self._in_files = {grant.id: grant for grant in grants}
        self._grants = others | self._in_files
        self._remembered.clear()

    def adopt(self, state: KeyTableState, grants: Iterable[Grant]) -> None:
        """Replace the keys in memory by `grants` and the keys from files."""
        first, before = not self.informed, self._grants
        self._grants = {grant.id: grant for grant in grants} | self._in_files
        self._state, self._older_state = state, None
        self._guarded = self._guarded or bool(self._grants)
        self._buckets = {key: kept for key, kept in self._buckets.items() if key in self._grants}
        self._remembered.clear()
        if not self._guarded and first:
            _log.warning("no API keys: every client that reaches the port may do everything")
        elif self._guarded and (first or self._grants != before):
            _log.info("API keys read", keys=len(self._grants))


def allow(grant: Grant, scope: Scope, detector: str | None) -> None:
    """Raise Forbidden if the key lacks the scope, UnknownDetector if it lacks the detector.

    A detector that the key does not cover looks like one that does not exist, so the key's owner
    cannot find out which detectors exist.
    """
    if scope not in grant.scopes:
        raise Forbidden(scope)
    if detector is not None and not grant.covers(detector):
        raise UnknownDetector()
