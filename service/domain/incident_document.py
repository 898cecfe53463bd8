"""The JSON documents of incidents and of their rows in answers."""

from collections.abc import Sequence

import msgspec
import numpy as np

from service.domain.event import Event
from service.domain.incident import Incident, IncidentDecision, KeptRow, sentence
from service.json_value import JsonObject
from service.timestamps import rfc3339


def document(incident: Incident, decision: IncidentDecision | None) -> JsonObject:
    """Return the JSON document of an incident and of the decision about it, None if undecided."""
    return {
        "id": incident.id,
        "source": incident.source or None,
        "state": incident.state,
        "verdict": decision.verdict if decision else None,
        "start": rfc3339(incident.start),
        "end": rfc3339(incident.end),
        "peak": incident.peak,
        "count": incident.count,
        "features": msgspec.to_builtins(list(incident.leading)),
        "regime": incident.regime or None,
        "version": incident.version,
        "generation": incident.generation,
        "sentence": sentence(incident),
        "pages": incident.pages,
        "like": incident.like,
        "why": decision.why if decision else None,
        "decided_by": decision.who if decision else None,
        "decided_at": rfc3339(decision.at) if decision else None,
    }


def row_document(row: KeptRow) -> JsonObject:
    """Return the JSON document of one kept row of an incident."""
    return {
        "event": row.event,
        "client_id": row.client_id,
        "at": rfc3339(row.at),
        "severity": row.severity,
        "p_value": row.p_value,
        "score": row.score,
        "vector": np.frombuffer(row.vector, "<f4").tolist() if row.vector else None,
        "attributions": msgspec.to_builtins(list(row.leading)),
    }


def incident_of(event: Event, incidents: Sequence[Incident]) -> str | None:
    """Return the id of the incident with the source and the time of an event, or None."""
    source = event.source or ""
    for incident in incidents:
        if incident.source == source and incident.start <= event.time <= incident.end:
            return incident.id
    return None
