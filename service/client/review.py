"""Calls about events and held-back rows, on which people decide."""

from typing import Any, Literal

from service.client.answers import Decided, Event, QuarantinedRows, QuarantineEntry, Revoked
from service.client.connection import Connection
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed

_REVOKE_SECONDS = 120  # a full buffer is gone through twice, 4 MiB at a time


class Review(Connection):
    """Returns anomalies and what waits for a person, and sends what a person decides."""

    def events(
        self, name: str, limit: int | None = None, *, incident: str | None = None
    ) -> list[Event]:
        """Return the latest anomalies, newest first; only those of one incident."""
        sent = {"params": present(limit=limit, incident=incident)}
        return self.send(Call("GET", path(name, "events"), listed("events", Event), sent))

    def quarantine(self, name: str) -> list[QuarantineEntry]:
        """Return what is held back, oldest first."""
        return self.send(
            Call("GET", path(name, "quarantine"), listed("quarantine", QuarantineEntry))
        )

    def quarantined(self, name: str, entry: str) -> QuarantinedRows:
        """Return the first rows of what is held back."""
        return self.send(Call("GET", path(name, "quarantine", entry), as_json(QuarantinedRows)))

    def decide_quarantine(
        self, name: str, entry: str, decision: Literal["release", "discard"]
    ) -> Decided:
        """Send what is held back to the buffer, or delete it."""
        sent = {"json": {"decision": decision}}
        call = Call(
            "POST", path(name, "quarantine", entry), as_json(Decided), sent, repeatable=False
        )
        return self.send(call)

    def revoke(self, name: str, **what: Any) -> Revoked:
        """Unlearn a `batch`, or all that came with a `key` so far; return what was revoked.

        With `dry_run` nothing changes. `why` goes into the audit trail; With
        `without_champion` no version serves where no kept version is clean. A repeated call does
        what is left.
        """
        sent = {"json": what, "timeout": _REVOKE_SECONDS}
        return self.send(Call("POST", path(name, "revoke"), as_json(Revoked), sent))
