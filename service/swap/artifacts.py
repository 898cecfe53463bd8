"""From an artifact's bytes to a version, with a memory of what this process verified."""

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import TypeVar

from models import ArtifactError, Version
from service.domain.inline_bounds import InlineBounds

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED = 20_000  # digests: 5 MB at most


class Artifacts:
    """Verifies artifacts of at most `max_bytes`; threads may share it.

    What was verified once is known by the sha256 of its bytes and built without checks from then
    on, in a tenth of the time: a champion that comes and goes under a bound of memory is verified
    once. What judging costs is remembered too.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._verified: OrderedDict[str, None] = OrderedDict()
        self._costs: OrderedDict[tuple[str, str], InlineBounds] = OrderedDict()
        self._lock = Lock()

    def open(self, data: bytes, sha256: str | None = None) -> Version:
        """Return the version whose artifact `data` is.

        ArtifactError where it is none, or has not the `sha256` that is given.
        """
        # Too large an artifact is refused before it is hashed.
        digest = hashlib.sha256(data).hexdigest() if len(data) <= self.max_bytes else ""
        if digest and sha256 and digest != sha256:
            raise ArtifactError("the artifact is not the one that was recorded")
        known = digest in self._verified
        version = Version.from_bytes(data, max_bytes=self.max_bytes, verified=known)
        self.trust(digest)
        return version

    def trust(self, sha256: str) -> None:
        """Remember that the bytes with this digest are a version of this process, encoded."""
        self._remember(self._verified, sha256, None)

    def cost(self, sha256: str | None, missing: str) -> InlineBounds | None:
        """Return what was measured of the artifact with this `missing` in its config, or None."""
        return self._costs.get((sha256 or "", missing))

    def measured(self, sha256: str | None, missing: str, bounds: InlineBounds) -> None:
        """Remember what judging with a version costs on this machine."""
        if sha256:
            self._remember(self._costs, (sha256, missing), bounds)

    def _remember(self, known: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            known[key] = value
            known.move_to_end(key)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
