"""Turns an artifact's bytes into a version, and remembers which artifacts were verified."""

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import TypeVar

from models import ArtifactError, Version
from service.domain.inline_bounds import InlineBounds

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED = 20_000  # most digests that are remembered: 5 MB


class Artifacts:
    """Verifies artifacts of at most `max_bytes`. Threads may share it.

    An artifact that was verified once is known by the sha256 of its bytes. From then on it is
    loaded without checks, in a tenth of the time. So a champion that is unloaded and loaded again
    because memory is bounded is verified only once. The measured cost of scoring is kept too.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._verified: OrderedDict[str, None] = OrderedDict()
        self._costs: OrderedDict[tuple[str, str], InlineBounds] = OrderedDict()
        self._lock = Lock()

    def open(self, data: bytes, sha256: str | None = None) -> Version:
        """Return the version of the artifact `data`.

        Raises ArtifactError if it is not an artifact, or does not have the given `sha256`.
        """
        # An artifact that is too large is refused before it is hashed.
        digest = hashlib.sha256(data).hexdigest() if len(data) <= self.max_bytes else ""
        if digest and sha256 and digest != sha256:
            raise ArtifactError("the artifact is not the one that was recorded")
        known = digest in self._verified
        version = Version.from_bytes(data, max_bytes=self.max_bytes, verified=known)
        self.trust(digest)
        return version

    def trust(self, sha256: str) -> None:
        """Remember that the artifact with this digest is valid: verified, or encoded here."""
        self._remember(self._verified, sha256, None)

    def cost(self, sha256: str | None, missing: str) -> InlineBounds | None:
        """Return the remembered cost of scoring, or None. It depends on the option `missing`."""
        return self._costs.get((sha256 or "", missing))

    def remember_cost(self, sha256: str | None, missing: str, bounds: InlineBounds) -> None:
        """Remember what scoring with a version costs on this machine."""
        if sha256:
            self._remember(self._costs, (sha256, missing), bounds)

    def _remember(self, known: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            known[key] = value
            known.move_to_end(key)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
