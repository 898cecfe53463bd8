"""What needs a person now, worst first; each item has one sentence and one path."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from service.counted import counted
from service.domain.detector import Detector
from service.domain.drift_report import Drift
from service.domain.incident import Incident, Verdict, sentence
from service.timestamps import day_and_time, unix_seconds

NAMED = 5  # most incidents of a detector that have a sentence of their own, the severest
WORKER_SECONDS = 60.0  # after this time without any worker a person has to look
# Drift that is younger is left out beside an open incident. The alert rules have the same bound.
_NEW_SECONDS = 3600.0
_AHEAD_SECONDS = 60.0  # a client's clock that is ahead by more is wrong
_WITHOUT_WORKER = "nothing is learned, and no incident opens or closes; start a worker"

# These bounds are those of the alert rules.
UNREAD_SECONDS = 600.0  # after this time scored rows that no worker read are an error
_LATE_SECONDS, _LATE_VECTORS = 6 * 3600.0, 32
_NEAR_BOUND = 0.8

# Worst first. A drift state that needs a person is a kind of its own.
KINDS = (
    "store", "worker", "unwatched", "incident", "full", "degraded", "failed", "new_regime",
    "input", "late", "parked", "quarantine",
)  # fmt: skip
DRIFT_NEEDS = {
    "degraded": "anomalies come in a burst while most of the input has not moved: do not learn "
    "now, look for the fault",
    "new_regime": "the input moved: look for the fault, or, if the new input is normal, send "
    "normal batches of it",
    "input": "the input moved, but the rows score as normal: check the sensors, or, if the new "
    "input is normal, send normal batches of it",
}


class Item(NamedTuple):
    """One thing that waits for a person; `since` in seconds since 1970, None where unknown."""

    kind: str
    detector: str | None
    sentence: str
    path: str
    since: float | None = None


def of_service(store: str | None, worker_age: float | None) -> list[Item]:
    """Return what is wrong with the service; `store` is the store's fault in words, or None.

    `worker_age` is the seconds since any worker reported, None if no worker ever did.
    """
    items = []
    if store is not None:
        items.append(Item("store", None, store, "/v1/service"))
    if worker_age is None:
        items.append(
            Item("worker", None, f"no worker has reported: {_WITHOUT_WORKER}", "/v1/service")
        )
    elif worker_age > WORKER_SECONDS:
        text = f"no worker has reported for {worker_age:.0f} s: {_WITHOUT_WORKER}"
        items.append(Item("worker", None, text, "/v1/service"))
    return items


def of_detector(
    detector: Detector,
    incidents: Sequence[tuple[Incident, Verdict | None]],
    now: float,
    *,
    buffer_bound: int,
    unread_since: float | None = None,
) -> list[Item]:
    """Return what waits at one detector at `now`.

    `incidents` are the open incidents, each with its verdict.
    `buffer_bound` is the most vectors that a detector buffers. `unread_since` is when the oldest
    rows were scored that no worker has read, None if there are none.
    """
    name, path = detector.name, f"/v1/detectors/{detector.name}"
    items = list(_of_incidents(detector, incidents, now))
    if unread_since is not None and now - unread_since > UNREAD_SECONDS:
        text = "rows are scored, and no worker looks at them: a fault would be reported to nobody"
        items.append(Item("unwatched", name, text, path, unread_since))
    return [
        *items,
        *_of_drift(detector, incidents, now),
        *_of_learning(detector, buffer_bound, now),
    ]


def _of_incidents(
    detector: Detector, incidents: Sequence[tuple[Incident, Verdict | None]], now: float
) -> Iterator[Item]:
    """Yield the undecided incidents that page a person. Beyond NAMED they are only counted."""
    path = f"/v1/detectors/{detector.name}/incidents"
    waiting = [incident for incident, verdict in incidents if incident.pages and verdict is None]
    waiting.sort(key=lambda incident: -incident.peak)
    for incident in waiting[:NAMED]:
        text = _sentence(detector.name, incident, now)
        yield Item("incident", detector.name, text, f"{path}/{incident.id}", incident.start)
    if others := waiting[NAMED:]:
        text = f"{counted(len(others), 'milder incident')} more, the first since "
        first = min(incident.start for incident in others)
        yield Item("incident", detector.name, f"{text}{day_and_time(first)} UTC", path, first)


def _of_drift(
    detector: Detector, incidents: Sequence[tuple[Incident, Verdict | None]], now: float
) -> Iterator[Item]:
    """Yield the drift that needs a person.

    Drift that is younger than an hour is left out beside an open incident that pages a person, is
    like a dismissed one, or has a verdict: drift and incident then have the same cause.
    """
    incident_known = any(
        incident.pages or incident.like or verdict for incident, verdict in incidents
    )
    kind, since = drift_kind(detector.drift), unix_seconds(detector.drift.since)
    if kind is not None and not (incident_known and now - (since or now) < _NEW_SECONDS):
        path = f"/v1/detectors/{detector.name}/drift"
        yield Item(kind, detector.name, DRIFT_NEEDS[kind], path, since)


def drift_kind(drift: Drift) -> str | None:
    """Return the kind of the drift if it needs a person, else None.

    A known regime needs nobody, unless the input moved while the mix of known regimes stayed.
    """
    if drift.state != "known_regime":
        return drift.state if drift.state in DRIFT_NEEDS else None
    tests = drift.statistics
    inputs = tests is not None and tests.inputs is not None and tests.inputs.alarm
    mix = tests is not None and tests.regimes is not None and tests.regimes.alarm
    return "input" if inputs and not mix else None


def _of_learning(detector: Detector, buffer_bound: int, now: float) -> Iterator[Item]:
    """Yield what keeps the detector from learning, and the vectors that wait for a person."""
    name, path = detector.name, f"/v1/detectors/{detector.name}"
    last, oldest = detector.last_retraining, detector.buffer_oldest
    waiting = detector.buffered + detector.parked
    if waiting > _NEAR_BOUND * buffer_bound:
        text = (
            f"{waiting:,} vectors are buffered or parked; at {buffer_bound:,} normal batches are "
            "refused"
        )
        yield Item("full", name, text, path)
    if oldest and now - oldest > _LATE_SECONDS and detector.buffered >= _LATE_VECTORS:
        text = f"{detector.buffered:,} normal vectors wait to be learned"
        yield Item("late", name, text, path, oldest)
    if last is not None and last.outcome in {"failed", "rejected"} and detector.parked:
        first = next(iter(last.reasons), "no reason was given")
        ended = "failed" if last.outcome == "failed" else "was rejected"
        text = f"the last retraining {ended}: {first}; {_to_decide(detector.parked)}"
        if last.outcome == "rejected" and last.version is not None:
            text += f"; if all of them are normal, promote version {last.version}"
        yield Item("failed", name, text, f"{path}/quarantine")
    elif detector.parked:
        text = f"of rejected experiences, {_to_decide(detector.parked)}"
        yield Item("parked", name, text, f"{path}/quarantine")
    if (rows_wait := detector.waiting) is not None:
        yield Item("quarantine", name, rows_wait, f"{path}/quarantine")


def _to_decide(parked: int) -> str:
    wait = "waits" if parked == 1 else "wait"
    return f"{counted(parked, 'vector')} {wait} to be released or discarded"


def _sentence(detector: str, incident: Incident, now: float) -> str:
    # An entity often has the name of its only source.
    named = not incident.source or detector.endswith(f":{incident.source}")
    source = "" if named else f"{incident.source}: "
    ahead = incident.start > now + _AHEAD_SECONDS
    wrong = "; that is in the future: check the client's clock" if ahead else ""
    return f"{source}{sentence(incident)}{wrong}"


def worst_first(items: Iterable[Item]) -> list[Item]:
    """Return the items sorted by kind, then by waiting time (longest first), then by detector.

    Incidents that are only counted come after the named ones.
    """
    order: Mapping[str, int] = {kind: place for place, kind in enumerate(KINDS)}

    def place(item: Item) -> tuple[int, bool, float, str, str]:
        only_counted = item.path.endswith("/incidents")
        return order[item.kind], only_counted, item.since or 0.0, item.detector or "", item.path

    return sorted(items, key=place)
