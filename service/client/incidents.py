"""Calls about incidents, labels, mutes and the history of a detector."""

from service.client.answers import (
    AttentionItem,
    Event,
    FeedbackAnswer,
    HistoryBucket,
    Incident,
    Label,
    MuteAnswer,
)
from service.client.connection import sends
from service.client.encoding import page, path, present
from service.client.transport import Call, as_json, listed, nothing


class Incidents:
    """Returns incidents and events, and sends the decisions and labels of a person."""

    @sends
    def attention(self) -> Call[list[AttentionItem]]:
        """Return all items that need a person now, worst first."""
        return Call("GET", "/v1/attention", listed("items", AttentionItem))

    @sends
    def incidents(
        self,
        /,
        name: str,
        *,
        state: str | None = None,
        limit: int = 100,
        after: str | None = None,
        **times: str | float,
    ) -> Call[list[Incident]]:
        """Return the latest incidents, newest first; with `state`, only the open or closed ones.

        `after` is the id of the last one of the page before. `times` may hold `from` and `to`.
        """
        sent = {"params": present(limit=limit, state=state, after=after, **times)}
        read = listed("incidents", Incident)
        return Call("GET", path(name, "incidents"), read, sent)

    @sends
    def incident(self, name: str, incident: str) -> Call[Incident]:
        """Return one incident with its severest rows."""
        return Call("GET", path(name, "incidents", incident), as_json(Incident))

    @sends
    def decide(self, name: str, incident: str, decision: str, why: str = "") -> Call[Incident]:
        """Dismiss or confirm an incident, or withdraw a decision. `effect` states the result."""
        sent = {"json": {"decision": decision, "why": why}}
        read = as_json(Incident)
        return Call("POST", path(name, "incidents", incident), read, sent)

    @sends
    def label(self, name: str, event: str, label: str) -> Call[FeedbackAnswer]:
        """Label an event as `normal` or as an `anomaly`."""
        sent = {
            "json": {"labels": [{"label": label, "event": event}]},
            "headers": {"idempotency-key": f"label-{event}-{label}"},
        }
        return Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent)

    @sends
    def mute(self, name: str, seconds: float, why: str = "") -> Call[MuteAnswer]:
        """Mute a detector: it pages nobody and learns nothing by itself. Return when it ends."""
        sent = {"json": {"seconds": seconds, "why": why}}
        return Call("POST", path(name, "mute"), as_json(MuteAnswer), sent)

    @sends
    def unmute(self, name: str) -> Call[None]:
        """End a mute."""
        return Call("DELETE", path(name, "mute"), nothing)

    @sends
    def event(self, name: str, event: str) -> Call[Event]:
        """Return one recorded anomaly."""
        return Call("GET", path(name, "events", event), as_json(Event))

    @sends
    def labels(self, name: str, *, limit: int = 100, after: str | None = None) -> Call[list[Label]]:
        """Return the latest labels that people gave, with the person and the time of each.

        `after` is the id of the last one of the page before.
        """
        where = path(name, "labels")
        return Call("GET", where, listed("labels", Label), page(limit, after))

    @sends
    def delete_label(self, name: str, label_id: str) -> Call[None]:
        """Delete a label."""
        return Call("DELETE", path(name, "labels", label_id), nothing)

    @sends
    def history(self, /, name: str, **period: str | int) -> Call[list[HistoryBucket]]:
        """Return the history of scored rows; `period` may hold `from`, `to` and `points`."""
        read = listed("buckets", HistoryBucket)
        return Call("GET", path(name, "history"), read, {"params": period})
