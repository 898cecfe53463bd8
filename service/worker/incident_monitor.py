"""Reads the reports of scored rows, and makes the incidents and the history of a detector.

The process that holds a detector's `monitor` lease reads the reports of all API processes in one
order. So counts are exact, whatever the number of API processes.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from models import Version
from models.parts.calibration import Threshold
from models.parts.incident_calibration import ChosenRule, choose, false_incidents
from service import log
from service.domain import history
from service.domain.detector import Detector
from service.domain.history import HOUR, MINUTE, Bucket, Buckets
from service.domain.incident import DismissedPattern, Incident, IncidentRule, KeptRow, most_severe
from service.domain.incident_fold import Conditions, Fold, IncidentChange
from service.domain.webhook_message import Message, message
from service.settings import Settings
from service.store.adapters import Stores
from service.store.incidents import FollowedState, StepChanges
from service.store.leases import Lease
from service.store.traffic import StoredReport
from service.worker.incident_rows import IncidentRows, gained, rows_so_far

_log = log.get(__name__)

REPORTS = 200  # most reports of one read; further ones wait for the next round
SAVE_SECONDS = 5.0  # between two saves of counts; an incident that opens or closes is saved at once
RATE_SECONDS = 600.0  # between two estimates of the rows per day


@dataclass(slots=True)
class _Followed:
    """A detector that this process follows, and its results that are not saved yet.

    `after` is the id of the last counted report. `chosen` is the rule in force. It was chosen at
    `rate_at` for the champion and the config revision `chosen_for`. `decisions` is the number of
    people's decisions at the last look, and `decided` are the open incidents with a decision.
    `buckets` and `changes` wait to be saved. `unsaved` says whether anything waits, and `urgent`
    that it must not wait, because a person has decided.
    """

    uid: str
    after: str
    fold: Fold
    version: Version | None = None
    chosen: ChosenRule | None = None
    chosen_for: tuple[int, int] = (0, 0)
    rate_at: float = -RATE_SECONDS
    decisions: int = -1
    muted_until: float = 0.0
    dismissed_patterns: tuple[DismissedPattern, ...] = ()
    decided: frozenset[str] = frozenset()
    buckets: dict[tuple[int, int], Bucket] = field(default_factory=dict)
    changes: list[IncidentChange] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)
    unsaved: bool = False
    urgent: bool = False


class IncidentMonitor:
    """Turns the reports of followed detectors into incidents and history."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._webhook = settings.webhook_url is not None
        self._public_url = settings.public_url
        self._stores = stores
        self._clock = stores.clock  # rows are dated with the store's time
        self._followed: dict[str, _Followed] = {}

    def leave(self, name: str) -> None:
        """Forget a detector that another process follows from now on."""
        self._followed.pop(name, None)

    async def look(
        self, lease: Lease, detector: Detector, version: Version, threshold: Threshold
    ) -> IncidentRows:
        """Process the reports since the last call; return the rows that incidents gained by them.

        `detector` has the config. `version` is the champion, `threshold` the threshold in force.
        Raises Fenced or StoreUnavailable.
        """
        name = lease.name
        followed = self._followed.get(name)
        if followed is None or followed.uid != lease.uid:
            followed = self._followed[name] = await self._begin(lease)
        followed.version = version
        reads = await self._stores.traffic.read(name, followed.after, REPORTS)
        await self._refresh(followed, name)
        has_rule = detector.config.incident is not None
        if has_rule:
            await self._choose_rule(followed, detector, version, threshold)
        now, before = await self._clock.now(), rows_so_far(followed.fold, followed.changes)
        if reads:
            await asyncio.to_thread(_count_reports, followed, reads, threshold.alpha, now)
        if has_rule and followed.chosen is not None:
            followed.changes += followed.fold.sweep(_conditions(followed, threshold.alpha, now))
        rows = gained(before, rows_so_far(followed.fold, followed.changes))
        any_opened_or_closed = any(change.kind != "extended" for change in followed.changes)
        due = time.monotonic() - followed.saved_at >= SAVE_SECONDS
        if any_opened_or_closed or followed.urgent or (due and followed.unsaved):
            await self._save(lease, followed)
        patterns = followed.dismissed_patterns
        return IncidentRows(rows, frozenset(pattern.id for pattern in patterns))

    async def close(self, lease: Lease) -> None:
        """Save the results, so that another process can go on from here."""
        followed = self._followed.pop(lease.name, None)
        if followed is not None and followed.unsaved:
            await self._save(lease, followed)

    async def _begin(self, lease: Lease) -> _Followed:
        state = await self._stores.incidents.load(lease.name)
        if state is None:
            return _Followed(lease.uid, "0-0", Fold())
        return _Followed(lease.uid, state.after, state.fold)

    async def _refresh(self, followed: _Followed, name: str) -> None:
        """Read what people have decided since the last call."""
        decisions = await self._stores.incidents.decisions(name)
        followed.muted_until = decisions.muted_until
        if decisions.number == followed.decisions:
            return
        followed.dismissed_patterns = tuple(await self._stores.incidents.dismissed_patterns(name))
        open_ids = [incident.id for incident in followed.fold.open()]
        followed.decided = frozenset(await self._stores.incidents.decided(name, open_ids))
        followed.urgent = followed.decisions >= 0
        followed.decisions = decisions.number

    async def _choose_rule(
        self, followed: _Followed, detector: Detector, version: Version, threshold: Threshold
    ) -> None:
        """Choose the incident rule from the version's calibration and the present traffic."""
        settings = detector.config.incident
        assert settings is not None, "only where incidents are asked for"
        now = time.monotonic()
        chosen_for = (detector.champion or 0, detector.config_revision)
        fresh = now - followed.rate_at < RATE_SECONDS
        if followed.chosen is not None and fresh and followed.chosen_for == chosen_for:
            return
        chunks = await self._stores.incidents.buckets(detector.name)
        today = await self._clock.now()
        rate = await asyncio.to_thread(_rows_per_day, chunks, dict(followed.buckets), today)
        followed.chosen = choose(
            false_incidents(version.lineage),
            settings.false_per_day,
            rate,
            threshold.alpha,
            settings.close_after_seconds,
        )
        followed.chosen_for, followed.rate_at = chosen_for, now

    async def _save(self, lease: Lease, followed: _Followed) -> None:
        name, now = lease.name, await self._clock.now()
        incidents = await self._with_rows(name, followed.changes)
        incidents = await asyncio.to_thread(_with_regimes, followed, incidents)
        chunks = {history.chunk_of(step, place) for step, place in followed.buckets}
        saved = await self._stores.incidents.buckets(name, sorted(chunks))
        too_old = (
            history.expired(await self._stores.incidents.chunk_names(name), now) if chunks else ()
        )
        buckets = await asyncio.to_thread(_joined_chunks, saved, followed.buckets)
        undecided = [
            incident for incident in followed.fold.open() if incident.id not in followed.decided
        ]
        paging = [incident for incident in undecided if incident.pages]
        silent = [
            incident for incident in undecided if not incident.pages and incident.like is None
        ]
        muted = now < followed.muted_until
        kinds = [change.kind for change in followed.changes]
        await self._stores.incidents.save(
            lease,
            FollowedState(followed.after, followed.fold),
            StepChanges(
                incidents=incidents,
                buckets={**dict.fromkeys(too_old), **buckets},
                messages=self._messages(lease, followed.changes, now),
                rule=_rule_document(followed.chosen),
                opened=kinds.count("opened"),
                closed=kinds.count("closed"),
                paging=0 if muted else len(paging),
                unreported=0 if muted else len(silent),
            ),
        )
        if kinds.count("closed"):  # retraining on drift waits until all incidents have ended
            await self._stores.due.refresh(name)
        followed.changes, followed.buckets = [], {}
        followed.unsaved = followed.urgent = False
        followed.saved_at = time.monotonic()

    async def _with_rows(
        self, name: str, changes: Sequence[IncidentChange]
    ) -> list[tuple[Incident, list[KeptRow] | None]]:
        """Return each changed incident in its present state, with its kept rows."""
        last: dict[str, Incident] = {change.incident.id: change.incident for change in changes}
        gained: dict[str, list[KeptRow]] = {}
        for change in changes:
            if change.rows:
                gained.setdefault(change.incident.id, []).extend(change.rows)
        saved = await self._stores.incidents.rows(name, list(gained))
        chosen = {
            incident_id: most_severe([*saved[incident_id], *rows])
            for incident_id, rows in gained.items()
        }
        without_vector = [row.event for rows in chosen.values() for row in rows if not row.vector]
        events = await self._stores.events.get(name, without_vector)
        whole = {
            incident_id: [
                msgspec.structs.replace(row, vector=events[row.event].vector.tobytes())
                if not row.vector and row.event in events
                else row
                for row in rows
            ]
            for incident_id, rows in chosen.items()
        }
        return [(incident, whole.get(incident_id)) for incident_id, incident in last.items()]

    def _messages(
        self, lease: Lease, changes: Sequence[IncidentChange], now: float
    ) -> list[Message]:
        if not self._webhook:
            return []
        return [
            message(
                lease.name,
                lease.uid,
                "closed" if change.kind in {"settled", "closed"} else "opened",
                change.incident,
                now,
                self._public_url,
            )
            for change in changes
            if change.reported and change.incident.pages
        ]


def _with_regimes(
    followed: _Followed, incidents: Sequence[tuple[Incident, list[KeptRow] | None]]
) -> list[tuple[Incident, list[KeptRow] | None]]:
    """Return the incidents, each with the number of the regime nearest to its worst row."""
    placed_rows = []
    for incident, rows in incidents:
        placed = incident
        if followed.version is not None and not incident.regime and rows and rows[0].vector:
            X = np.frombuffer(rows[0].vector, "<f4").reshape(1, -1)
            regime = max(0, int(followed.version.nearest_regime(X)[0]))
            placed = msgspec.structs.replace(incident, regime=regime)
            source = followed.fold.sources.get(incident.source)
            if source is not None and source.open is not None and source.open.id == incident.id:
                source.open = msgspec.structs.replace(source.open, regime=regime)
        placed_rows.append((placed, rows))
    return placed_rows


def _count_reports(
    followed: _Followed, reads: Sequence[StoredReport], alpha: float, now: float
) -> None:
    """Count the reports' rows. If a rule is in force, update the incidents with them too."""
    for at, report in reads:
        followed.after = at
        if report is None or report.uid != followed.uid:
            continue
        for tally in report.tallies:
            bucket = tally.bucket(report.generation)
            history.add(followed.buckets, (tally.step, tally.place), bucket)
            # Rows count in their hour at once, not only when its minutes expire.
            if tally.step == MINUTE:
                hour = tally.place * MINUTE // HOUR
                history.add(followed.buckets, (HOUR, hour), bucket)
        if followed.chosen is None:
            continue
        conditions = _conditions(followed, alpha, now)
        conditions = msgspec.structs.replace(
            conditions, version=report.version, generation=report.generation
        )
        for block in report.blocks:
            followed.changes += followed.fold.take(block, conditions)
    followed.unsaved = True


def _conditions(followed: _Followed, alpha: float, now: float) -> Conditions:
    assert followed.chosen is not None, "only where a rule is in force"
    return Conditions(
        rule=followed.chosen.rule,
        now=now,
        alpha=alpha,
        version=0,
        generation=0,
        muted=now < followed.muted_until,
        dismissed_patterns=followed.dismissed_patterns,
    )


def _rule_document(chosen: ChosenRule | None) -> IncidentRule | None:
    """Return the rule in force in the form for the status, None if there is none."""
    if chosen is None:
        return None
    return IncidentRule(
        calibration=chosen.calibration,
        alarming_rows=chosen.rule.k,
        of_rows=chosen.rule.m,
        severity_alone=chosen.rule.alone,
        asked_per_day=chosen.asked,
        held_per_day=chosen.per_day,
        held_low=chosen.low,
        held_high=chosen.high,
        counted_rows=chosen.counted_rows,
        needed_rows=chosen.needed_rows,
    )


def _rows_per_day(
    chunks: Mapping[str, Buckets], unsaved: Mapping[tuple[int, int], Bucket], now: float
) -> float | None:
    """Return the rows per day, from the stored minutes and those not saved yet."""
    minutes: Buckets = {}
    for chunk, buckets in chunks.items():
        if history.step_of(chunk) == MINUTE:
            minutes |= buckets
    for (step, place), bucket in unsaved.items():
        if step == MINUTE:
            history.add(minutes, place, bucket)
    return history.rows_per_day(minutes, now)


def _joined_chunks(
    saved: Mapping[str, Buckets], unsaved: Mapping[tuple[int, int], Bucket]
) -> dict[str, bytes]:
    """Return the packed chunks with the counts that are not saved yet added."""
    chunks = {chunk: dict(buckets) for chunk, buckets in saved.items()}
    for (step, place), bucket in unsaved.items():
        history.add(chunks.setdefault(history.chunk_of(step, place), {}), place, bucket)
    return {chunk: history.pack(buckets) for chunk, buckets in chunks.items()}
