"""Carries out a person's decision about an incident."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.api.parts import Parts
from service.api.request_bodies import DecideIncident
from service.counted import counted
from service.domain.admission import UNDECIDED
from service.domain.api_key import Grant
from service.domain.detector import Detector
from service.domain.event import Label, digest
from service.domain.incident import (
    VERDICTS,
    DismissedPattern,
    Incident,
    IncidentDecision,
    KeptRow,
    arrival,
    number,
    pattern_of_incident,
)
from service.domain.nearest_rows import nearer
from service.domain.provenance import RevocationTarget
from service.domain.quarantine_entry import QuarantineEntry
from service.domain.revocation_plan import RevocationRequest
from service.problems import Conflict, StoreUnavailable, Unknown, no_such
from service.scoring.request_rows import labelled_rows
from service.store.incidents import IncidentWithDecision
from service.timestamps import unix_seconds

_DECIDE_SECONDS = 30.0  # the lease of a process that dies in a decision ends after this time
_WAIT_SECONDS = 5.0  # the longest wait for another decision
_AGAIN_SECONDS = 0.05  # between two tries


@contextlib.asynccontextmanager
async def deciding(app: Parts, name: str) -> AsyncIterator[None]:
    """Context manager: nobody else carries out a decision about the detector meanwhile.

    A decision takes several writes. Two decisions at the same time would both leave their labels.
    Raises Conflict if another decision takes too long.
    """
    leases, until = app.stores.leases, time.monotonic() + _WAIT_SECONDS
    while (lease := await leases.acquire(name, _DECIDE_SECONDS, "decision")) is None:
        if time.monotonic() > until:
            raise Conflict("Another decision about this detector is not finished. Try again.")
        await asyncio.sleep(_AGAIN_SECONDS)
    try:
        yield
    finally:
        with contextlib.suppress(StoreUnavailable):
            await leases.release(lease)


async def decide(
    app: Parts, detector: Detector, known: IncidentWithDecision, body: DecideIncident, caller: Grant
) -> IncidentWithDecision:
    """Write the decision of `caller`. Return the incident with the decision.

    The same decision again changes nothing. `known` must have been read under the lease
    `deciding`. Raises Conflict if the incident's verdict is not the one that the caller saw.
    """
    incident, before = known
    verdict = VERDICTS[body.decision]
    standing = before.verdict if before else None
    if before is not None and standing == verdict:
        return known
    if body.seen not in {msgspec.UNSET, standing}:
        raise Conflict(f"{_unseen_decision(before)} Look at the incident again, then decide.")
    name = detector.name
    rows = (await app.stores.incidents.rows(name, [incident.id]))[incident.id]
    rows = [row for row in rows if row.vector]
    pattern = pattern_of_incident(incident, rows, caller.id) if verdict == "dismissed" else None
    who = caller.who
    taken_back = await _take_back(app, detector, incident.id, before, who) if before else None
    batch = None
    if verdict == "dismissed" and rows:
        X = np.stack([np.frombuffer(row.vector, "<f4") for row in rows])
        stored = await app.ingest.store(
            name, labelled_rows(X), None, sender=caller.id, judged=False
        )
        batch = stored.batch_id
    if verdict is not None and rows:
        labels = [_label(row, verdict, incident.id, caller.id, batch) for row in rows]
        await app.stores.labels.add(name, detector.uid, labels, who=who)
    released = 0
    if verdict == "dismissed":
        released = await _release(app, name, incident, rows, who=who, why=body.why)
    effect = _effect(verdict, len(rows), pattern, detector, taken_back)
    if standing and verdict:
        effect = f"Until now the incident was {standing}. {effect}"
    if released:
        rows_released = counted(released, "row")
        effect += f" Buffered too: {rows_released} that waited in quarantine for this decision."
    decision = IncidentDecision(verdict, body.why, who, time.time(), effect, released)
    if not await app.stores.incidents.decide(name, incident.id, decision, pattern):
        raise no_such("incident", ".../incidents")
    return IncidentWithDecision(incident, decision)


def _unseen_decision(decision: IncidentDecision | None) -> str:
    """Return in words the present decision, which the person who decides now did not see."""
    if decision is None or decision.verdict is None:
        return "The decision was withdrawn in the meantime."
    why = f" ({decision.why})" if decision.why else ""
    return f"{decision.who} {decision.verdict} this incident in the meantime{why}."


def _label(row: KeptRow, verdict: str, incident: str, sender: str, batch: str | None) -> Label:
    return Label(
        "normal" if verdict == "dismissed" else "anomaly",
        np.frombuffer(row.vector, "<f4"),
        row.event,
        time.time(),
        sender=sender,
        incident=incident,
        batch=batch,
    )


async def _release(
    app: Parts, name: str, incident: Incident, rows: Sequence[KeptRow], *, who: str, why: str
) -> int:
    """Release the rows of the quarantine that belong to the incident. Return how many.

    A row belongs to the incident on two conditions. The row arrived or alarmed while the incident
    lasted. It is nearer to the kept rows of dismissed incidents, this one with its `rows` included,
    than to the kept rows of all others. Other rows may belong to a fault at the same time.
    """
    lasted = arrival(incident, rows)
    total, kept_rows = 0, None
    for entry in await app.stores.quarantine.list(name):
        if entry.kind != "rows" or entry.reason not in UNDECIDED:
            continue
        with contextlib.suppress(Unknown, Conflict):  # another person decided in between
            X = await _rows_of_that_time(app, name, entry, lasted)
            if X is None:
                continue
            kept_rows = kept_rows or await _kept_rows_by_verdict(app, name, incident.id)
            nearer_rows = await asyncio.to_thread(_nearer_to_ours, X, *kept_rows)
            if nearer_rows.any():
                part = await app.stores.quarantine.split(name, entry.id, nearer_rows)
                total += await app.stores.quarantine.decide(name, part, "release", who=who, why=why)
    return total


async def _rows_of_that_time(
    app: Parts, name: str, entry: QuarantineEntry, lasted: tuple[float, float]
) -> NDArray[np.float32] | None:
    """Return the rows (n, d) of the entry if they came or alarmed in the time `lasted`, else None.

    Raises Unknown if the entry is decided.
    """
    since, until = lasted
    came_at = unix_seconds(entry.parked_at) or 0.0
    if came_at < since:
        return None
    X = await app.stores.quarantine.vectors(name, entry.id)
    if came_at > until:  # the rows were sent after the incident, so the time of scoring counts
        alarmed = await app.stores.traffic.recorded(name, [digest(x) for x in X])
        if not any(since <= at <= until for at in alarmed.values()):
            return None
    return X


async def _kept_rows_by_verdict(
    app: Parts, name: str, incident: str
) -> tuple[list[KeptRow], list[KeptRow]]:
    """Return the kept rows of this and other dismissed incidents, and those of all the others."""
    listed = await app.stores.incidents.all(name)
    rows = await app.stores.incidents.rows(name, [entry.incident.id for entry in listed])
    ours: list[KeptRow] = []
    others: list[KeptRow] = []
    for listed_incident, decision in listed:
        verdict = decision.verdict if decision else None
        spared = verdict == "dismissed" or (verdict is None and listed_incident.like is not None)
        is_ours = listed_incident.id == incident or spared
        (ours if is_ours else others).extend(rows[listed_incident.id])
    return ours, others


def _nearer_to_ours(
    X: NDArray[np.float32], ours: Sequence[KeptRow], others: Sequence[KeptRow]
) -> NDArray[np.bool_]:
    """Return which rows of X (n, d) lie nearer to `ours` than to `others`, (n,)."""
    d = X.shape[1]

    def stacked(rows: Sequence[KeptRow]) -> NDArray[np.float32]:
        vectors = [np.frombuffer(row.vector, "<f4") for row in rows]
        return np.array([vector for vector in vectors if len(vector) == d], np.float32).reshape(
            -1, d
        )

    our_rows = stacked(ours)
    return nearer(X, our_rows, stacked(others)) if len(our_rows) else np.zeros(len(X), np.bool_)


async def _take_back(
    app: Parts, detector: Detector, incident: str, before: IncidentDecision, who: str
) -> str:
    """Take back an earlier decision: delete its labels, and its rows that are not learned yet.

    Returns the effect in words.
    """
    name, store = detector.name, app.stores.labels
    labels = [label for label in await store.all(name) if label.incident == incident]
    learned_batch = None
    for batch in {label.batch for label in labels if label.batch}:
        try:
            why = "the decision was withdrawn"
            request = RevocationRequest(RevocationTarget("batch", batch), who, why, decision=True)
            plan = await app.stores.revocations.plan(name, request.target)
            if plan.served:
                learned_batch = batch
            else:
                await app.stores.revocations.revoke(name, request)
        except Unknown:
            pass  # the batch is discarded already
        except Conflict:
            learned_batch = batch  # a version that learned it was promoted meanwhile
    await store.delete(name, labels)
    effect = "The incident's labels are deleted, and its rows are not learned."
    if learned_batch is not None:
        effect = (
            f"The incident's labels are deleted. Its rows are learned and stay so. Revoke batch "
            f"{learned_batch} to unlearn them."
        )
    if before.released:
        released = counted(before.released, "row")
        effect += f" Rows that it released from quarantine stay buffered or learned: {released}."
    return effect


def at_next_retraining(detector: Detector) -> str:
    """Return when rows that a person labelled normal are learned, in words."""
    if detector.champion is None:
        return "Labels alone cannot train the first version."
    paused = "Retraining is paused. " if detector.config.retrain.paused else ""
    return f"{paused}`retrain` starts one now, however few rows they are."


def _effect(
    verdict: str | None,
    rows: int,
    pattern: DismissedPattern | None,
    detector: Detector,
    taken_back: str | None,
) -> str:
    """Return the effect of a decision in words."""
    if verdict is None:
        return taken_back or "There was no decision before. Nothing changes."
    if not rows:
        return (
            "No row of the incident is kept, so nothing is labelled. Of each second the service "
            "keeps the severest alarming rows, and of these the latest. `feedback` labels others."
        )
    effect = f"{rows} kept row{'s are' if rows != 1 else ' is'} "
    if verdict == "confirmed":
        return effect + (
            "labelled as anomalies. They are never learned. The gate requires that a new version "
            "still finds them."
        )
    effect += "labelled normal and buffered for the next retraining. "
    effect += f"{at_next_retraining(detector)} "
    if pattern is not None and pattern:
        like = [
            f"{feature} from {number(low)} to {number(high)}"
            for feature, (low, high) in pattern.ranges.items()
        ]
        like += [f"{feature} {' or '.join(words[:3])}" for feature, words in pattern.words.items()]
        leading = ", ".join(like[:3])
        effect += f"From now on rows with these leading features page nobody: {leading}. "
    return effect + "Real anomalies among such rows will be missed."
