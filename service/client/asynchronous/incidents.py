"""Calls about incidents, labels, mutes and the history of a detector.

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
    """Returns incidents and events, and sends the decisions and labels of a person."""

    async def attention(self) -> list[AttentionItem]:
        """Return all items that need a person now, worst first."""
        return await self.send(Call("GET", "/v1/attention", listed("items", AttentionItem)))

    async def incidents(
        self, name: str, *, state: str | None = None, limit: int = 100
    ) -> list[Incident]:
        """Return the latest incidents, newest first; with `state`, only the open or closed ones."""
        sent = {"params": present(limit=limit, state=state)}
        read = listed("incidents", Incident)
        return await self.send(Call("GET", path(name, "incidents"), read, sent))

    async def incident(self, name: str, incident: str) -> Incident:
        """Return one incident with its severest rows."""
        return await self.send(Call("GET", path(name, "incidents", incident), as_json(Incident)))

    async def decide(self, name: str, incident: str, decision: str, why: str = "") -> Incident:
        """Dismiss or confirm an incident, or withdraw a decision. `effect` states the result."""
        sent = {"json": {"decision": decision, "why": why}}
        read = as_json(Incident)
        return await self.send(Call("POST", path(name, "incidents", incident), read, sent))

    async def label(self, name: str, event: str, label: str) -> FeedbackAnswer:
        """Label an event as `normal` or as an `anomaly`."""
        sent = {
            "json": {"labels": [{"label": label, "event": event}]},
            "headers": {"idempotency-key": f"label-{event}-{label}"},
        }
        return await self.send(Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent))

    async def mute(self, name: str, seconds: float, why: str = "") -> MuteAnswer:
        """Mute a detector: it pages nobody and learns nothing by itself. Return when it ends."""
        sent = {"json": {"seconds": seconds, "why": why}}
        return await self.send(Call("POST", path(name, "mute"), as_json(MuteAnswer), sent))

    async def unmute(self, name: str) -> None:
        """End a mute."""
        return await self.send(Call("DELETE", path(name, "mute"), nothing))

    async def event(self, name: str, event: str) -> Event:
        """Return one recorded anomaly."""
        return await self.send(Call("GET", path(name, "events", event), as_json(Event)))

    async def labels(self, name: str) -> list[Label]:
        """Return the labels that people gave, with the person and the time of each."""
        return await self.send(Call("GET", path(name, "labels"), listed("labels", Label)))

    async def delete_label(self, name: str, label_id: str) -> None:
        """Delete a label."""
        return await self.send(Call("DELETE", path(name, "labels", label_id), nothing))

    async def history(self, name: str, **asked: str | int) -> list[HistoryBucket]:
        """Return the history of scored rows; `asked` may hold `from`, `to` and `points`."""
        read = listed("buckets", HistoryBucket)
        return await self.send(Call("GET", path(name, "history"), read, {"params": asked}))
