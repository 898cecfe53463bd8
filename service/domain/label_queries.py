"""Chooses the events whose labels would help a detector most, to ask a person about them."""

from collections.abc import Collection, Sequence

import numpy as np

from models import Version
from models.parts.calibration import Threshold
from service.domain.attribution import Attribution, numeric
from service.domain.drift_report import Query
from service.domain.event import Event

LOOKED_AT = 200  # latest events that are considered
NEAR = 2.0  # severity below which an event is near the threshold
ASKED = 10  # most events that a person is asked about
_ALIKE = 3  # a kind with this many events is frequent


def choose(
    events: Sequence[Event], answered: Collection[str], version: Version, threshold: Threshold
) -> tuple[Query, ...]:
    """Return the events to label, each with a reason, the most useful first.

    First comes one event of each frequent kind. Events are of one kind if they have the same
    nearest regime, and the same leading feature on the same side of its expected value. Then come
    events that this version finds normal. Then come events near the threshold, the nearest first.
    `answered` are the ids of events that already have a label.
    """
    open_ = [
        event
        for event in events
        if event.id not in answered and len(event.vector) == version.dimension
    ]
    if not open_:
        return ()
    X = np.stack([event.vector for event in open_])
    anomalous = version.judge(X, threshold).is_anomaly
    reasons: dict[str, str] = {}
    for place, alike in _frequent_kinds(open_, version.nearest_regime(X).tolist()):
        middle = sorted(alike, key=lambda event: event.severity)[len(alike) // 2]
        reasons[middle.id] = f"one of {len(alike)} similar events: {place}"
    for event, still in zip(open_, anomalous.tolist(), strict=True):
        if not still:
            reasons.setdefault(
                event.id, f"normal to the champion, an anomaly to version {event.version}"
            )
    near = [event for event in open_ if event.severity < NEAR]
    for event in sorted(near, key=lambda event: abs(event.severity - 1.0)):
        reasons.setdefault(event.id, f"near the threshold: severity {event.severity:.2f}")
    return tuple(Query(event, reason) for event, reason in list(reasons.items())[:ASKED])


def _frequent_kinds(
    events: Sequence[Event], regimes: Sequence[int]
) -> list[tuple[str, list[Event]]]:
    """Return the frequent kinds of events in words, each with its events; most frequent first."""
    kinds: dict[str, list[Event]] = {}
    for event, regime in zip(events, regimes, strict=True):
        if event.attributions:
            first = event.attributions[0]
            near = f"nearest to regime {regime}, " if regime else ""
            kinds.setdefault(f"{near}{first.feature} {_side(first)}", []).append(event)
    often = [(place, alike) for place, alike in kinds.items() if len(alike) >= _ALIKE]
    return sorted(often, key=lambda kind: -len(kind[1]))


def _side(attribution: Attribution) -> str:
    if isinstance(attribution.value, str):
        return f"is {attribution.value}"
    value, expected = numeric(attribution.value), numeric(attribution.expected)
    above = value is not None and expected is not None and value > expected
    return f"{'above' if above else 'below'} what is expected"
