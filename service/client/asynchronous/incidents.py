"""Calls about incidents: what needs a person, and what a person says of it.

Written by `make docs` from the module of the same name one folder up.
"""

from typing import Any

from service.client.answers import Event, FeedbackAnswer
from service.client.asynchronous.connection import AsyncConnection
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed, nothing


class Incidents(AsyncConnection):
    """Shows what needs a person, and carries decisions back."""

    async def attention(self) -> list[dict[str, Any]]:
        """Return what needs a person now, worst first."""
        return await self.send(Call("GET", "/v1/attention", listed("items", dict[str, Any])))

    async def incidents(
        self, name: str, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the latest incidents, newest first; only those that are `open` or `closed`."""
        sent = {"params": present(limit=limit, state=state)}
        read = listed("incidents", dict[str, Any])
        return await self.send(Call("GET", path(name, "incidents"), read, sent))

    async def incident(self, name: str, incident: str) -> dict[str, Any]:
        """Return one incident with its worst rows."""
        return await self.send(
            Call("GET", path(name, "incidents", incident), as_json(dict[str, Any]))
        )

    async def decide(
        self, name: str, incident: str, decision: str, why: str = ""
    ) -> dict[str, Any]:
        """Dismiss, confirm or withdraw; `effect` of the answer says what comes of it."""
        sent = {"json": {"decision": decision, "why": why}}
        read = as_json(dict[str, Any])
        return await self.send(Call("POST", path(name, "incidents", incident), read, sent))

    async def label(self, name: str, event: str, label: str) -> FeedbackAnswer:
        """Say whether a recorded anomaly was `normal` or an `anomaly`."""
        sent = {
            "json": {"labels": [{"label": label, "event": event}]},
            "headers": {"idempotency-key": f"label-{event}-{label}"},
        }
        return await self.send(Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent))

    async def mute(self, name: str, seconds: float, why: str = "") -> dict[str, Any]:
        """Let a detector page nobody and learn nothing for a while; return until when."""
        sent = {"json": {"seconds": seconds, "why": why}}
        return await self.send(Call("POST", path(name, "mute"), as_json(dict[str, Any]), sent))

    async def unmute(self, name: str) -> None:
        """End a mute."""
        return await self.send(Call("DELETE", path(name, "mute"), nothing))

    async def event(self, name: str, event: str) -> Event:
        """Return one recorded anomaly."""
        return await self.send(Call("GET", path(name, "events", event), as_json(Event)))

    async def labels(self, name: str) -> list[dict[str, Any]]:
        """Return what people said, with who said it when."""
        return await self.send(Call("GET", path(name, "labels"), listed("labels", dict[str, Any])))

    async def delete_label(self, name: str, label_id: str) -> None:
        """Take back what was said."""
        return await self.send(Call("DELETE", path(name, "labels", label_id), nothing))

    async def history(self, name: str, **asked: Any) -> list[dict[str, Any]]:
        """Return buckets of what was scored; `asked` may hold `from`, `to` and `points`."""
        read = listed("buckets", dict[str, Any])
        return await self.send(Call("GET", path(name, "history"), read, {"params": asked}))
