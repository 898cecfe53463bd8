"""Calls about recorded anomalies (events) and about rows in quarantine."""

from typing import Any, Literal

from service.client.answers import Decided, Event, QuarantinedRows, QuarantineEntry, Revoked
from service.client.connection import sends
from service.client.encoding import page, path, present
from service.client.transport import Call, as_json, listed

_REVOKE_SECONDS = 120  # the service reads a full buffer twice, 4 MiB at a time


class Review:
    """Returns events and rows in quarantine, and sends the decisions of a person."""

    @sends
    def events(
        self,
        /,
        name: str,
        limit: int | None = None,
        *,
        incident: str | None = None,
        after: str | None = None,
        **times: str | float,
    ) -> Call[list[Event]]:
        """Return the latest events, newest first; with `incident`, only those of this incident.

        `after` is the id of the last one of the page before. `times` may hold `from` and `to`.
        """
        sent = {"params": present(limit=limit, incident=incident, after=after, **times)}
        return Call("GET", path(name, "events"), listed("events", Event), sent)

    @sends
    def quarantine(
        self, name: str, *, limit: int | None = None, after: str | None = None
    ) -> Call[list[QuarantineEntry]]:
        """Return the entries of the quarantine, oldest first; with `limit`, a page, newest first.

        `after` is the id of the last one of the page before.
        """
        read = listed("quarantine", QuarantineEntry)
        return Call("GET", path(name, "quarantine"), read, page(limit, after))

    @sends
    def quarantined(self, name: str, entry: str) -> Call[QuarantinedRows]:
        """Return the first rows of one entry of the quarantine."""
        return Call("GET", path(name, "quarantine", entry), as_json(QuarantinedRows))

    @sends
    def decide_quarantine(
        self, name: str, entry: str, decision: Literal["release", "discard"]
    ) -> Call[Decided]:
        """Release the rows of an entry to the buffer, or discard (delete) them."""
        sent = {"json": {"decision": decision}}
        return Call(
            "POST", path(name, "quarantine", entry), as_json(Decided), sent, repeatable=False
        )

    @sends
    def revoke(self, /, name: str, **request: Any) -> Call[Revoked]:
        """Unlearn one `batch`, or all vectors that an API `key` sent; return what was revoked.

        Give either `batch` or `key`. With `dry_run` nothing changes. `why` goes into the audit
        trail. A call fails if every kept version learned the vectors. With `without_champion`
        the call succeeds even then, and no version serves afterwards. If a call is interrupted,
        repeat it: it continues.
        """
        sent = {"json": request}
        return Call("POST", path(name, "revoke"), as_json(Revoked), sent, seconds=_REVOKE_SECONDS)
