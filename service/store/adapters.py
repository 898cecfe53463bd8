"""Every adapter of an API process over one connection pool, opened and closed together."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.audit_trail import Audit
from service.store.buffer import Buffer, Holding
from service.store.connection import connect
from service.store.detectors import Detectors
from service.store.due_index import DueIndex
from service.store.events import Events
from service.store.held_rows import Held
from service.store.incidents import Incidents
from service.store.labels import LabelStore
from service.store.leases import Leases
from service.store.live_summaries import Live
from service.store.processes import Processes
from service.store.quarantine import Quarantine
from service.store.registry import Registry
from service.store.revocations import Revocations
from service.store.templates import Templates
from service.store.traffic import TrafficStore
from service.store.words import Words

_LISTENING_SECONDS = 5.0  # above the pause between two looks at a subscription


@dataclass(frozen=True, slots=True)
class Stores:
    """The adapters; `listening` is a second client, for the subscription."""

    redis: Redis
    listening: Redis
    api_keys: ApiKeys
    detectors: Detectors
    buffer: Buffer
    registry: Registry
    held: Held
    quarantine: Quarantine
    revocations: Revocations
    audit: Audit
    events: Events
    labels: LabelStore
    live: Live
    traffic: TrafficStore
    incidents: Incidents
    processes: Processes
    leases: Leases
    due: DueIndex
    words: Words
    templates: Templates

    @classmethod
    async def open(cls, settings: Settings, url: str) -> Self:
        """Return adapters for the store at `url`; nothing connects before its first use."""
        redis = await connect(url)
        return cls(
            redis,
            await connect(url, deadline=_LISTENING_SECONDS),
            ApiKeys(redis, most=settings.max_keys),
            Detectors(
                redis,
                max_detectors=settings.max_detectors,
                max_entities=settings.max_entities,
            ),
            Buffer(
                redis,
                max_vectors=settings.buffer_max_vectors,
                max_bytes=settings.buffer_max_bytes,
                experience_max_vectors=settings.experience_max_vectors,
                holding=Holding(
                    settings.quarantine_max_vectors,
                    settings.quarantine_max_bytes,
                    settings.sender_novel_share,
                ),
                replicas=settings.wait_replicas,
            ),
            Registry(redis, versions_kept=settings.versions_kept),
            Held(redis),
            Quarantine(redis),
            Revocations(redis),
            Audit(redis),
            Events(redis, events_kept=settings.events_kept),
            LabelStore(redis, labels_kept=settings.labels_kept),
            Live(redis),
            TrafficStore(redis, events_kept=settings.events_kept),
            Incidents(redis),
            Processes(redis),
            Leases(redis),
            DueIndex(redis),
            Words(redis),
            Templates(redis),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()
        await self.listening.aclose()
