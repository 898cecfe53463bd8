"""Calls about incidents: what needs a person, and what a person says of it.

Written by `make docs` from the module of the same name one folder up.
"""

from service.client.answers import (
    AttentionItem,
    Event,
    FeedbackAnswer,
    HistoryBucket,
    Incident,
    Label,
    MuteAnswer,
)
from service.client.asynchronous.connection import AsyncConnection
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed, nothing


class Incidents(AsyncConnection):
    """Returns what needs a person, and sends what a person decides."""

    async def attention(self) -> list[AttentionItem]:
        """Return what needs a person now, worst first."""
        return await self.send(Call("GET", "/v1/attention", listed("items", AttentionItem)))

    async def incidents(
        self, name: str, *, state: str | None = None, limit: int = 100
    ) -> list[Incident]:
        """Return the latest incidents, newest first; only those that are `open` or `closed`."""
        sent = {"params": present(limit=limit, state=state)}
        read = listed("incidents", Incident)
        return await self.send(Call("GET", path(name, "incidents"), read, sent))

    async def incident(self, name: str, incident: str) -> Incident:
        """Return one incident with its worst rows."""
        return await self.send(Call("GET", path(name, "incidents", incident), as_json(Incident)))

    async def decide(self, name: str, incident: str, decision: str, why: str = "") -> Incident:
        """Dismiss, confirm or withdraw; `effect` in the answer says what follows."""
        sent = {"json": {"decision": decision, "why": why}}
        read = as_json(Incident)
        return await self.send(Call("POST", path(name, "incidents", incident), read, sent))

    async def label(self, name: str, event: str, label: str) -> FeedbackAnswer:
        """Say whether a recorded anomaly was `normal` or an `anomaly`."""
        sent = {
            "json": {"labels": [{"label": label, "event": event}]},
            "headers": {"idempotency-key": f"label-{event}-{label}"},
        }
        return await self.send(Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent))

    async def mute(self, name: str, seconds: float, why: str = "") -> MuteAnswer:
        """Let a detector page nobody and learn nothing for a while; return until when."""
        sent = {"json": {"seconds": seconds, "why": why}}
        return await self.send(Call("POST", path(name, "mute"), as_json(MuteAnswer), sent))

    async def unmute(self, name: str) -> None:
        """End a mute."""
        return await self.send(Call("DELETE", path(name, "mute"), nothing))

    async def event(self, name: str, event: str) -> Event:
        """Return one recorded anomaly."""
        return await self.send(Call("GET", path(name, "events", event), as_json(Event)))

    async def labels(self, name: str) -> list[Label]:
        """Return what people said, with who said it when."""
        return await self.send(Call("GET", path(name, "labels"), listed("labels", Label)))

    async def delete_label(self, name: str, label_id: str) -> None:
        """Take back what was said."""
        return await self.send(Call("DELETE", path(name, "labels", label_id), nothing))

    async def history(self, name: str, **asked: str | int) -> list[HistoryBucket]:
        """Return buckets of what was scored; `asked` may hold `from`, `to` and `points`."""
        read = listed("buckets", HistoryBucket)
        return await self.send(Call("GET", path(name, "history"), read, {"params": asked}))
