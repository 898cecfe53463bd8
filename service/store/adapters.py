"""All store adapters of an API process. They share one connection pool."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.audit_trail import Audit
from service.store.buffer import Buffer, QuarantineBounds
from service.store.connection import connect
from service.store.detectors import Detectors
from service.store.due_index import DueIndex
from service.store.events import Events
from service.store.held_rows import HeldRows
from service.store.incidents import Incidents
from service.store.labels import LabelStore
from service.store.leases import Leases
from service.store.live_summaries import LiveSummaries
from service.store.processes import Processes
from service.store.quarantine import Quarantine
from service.store.registry import Registry
from service.store.revocations import Revocations
from service.store.templates import Templates
from service.store.traffic import TrafficStore
from service.store.words import Words

_LISTENING_SECONDS = 5.0  # longer than the poll interval of a subscription


def api_keys(settings: Settings, redis: Redis) -> ApiKeys:
    """Return the API keys with the bound of the settings."""
    return ApiKeys(redis, most=settings.max_keys)


def detectors(settings: Settings, redis: Redis) -> Detectors:
    """Return the detectors with the bounds of the settings."""
    return Detectors(
        redis, max_detectors=settings.max_detectors, max_entities=settings.max_entities
    )


def buffer(settings: Settings, redis: Redis) -> Buffer:
    """Return the buffer with the bounds of the settings."""
    return Buffer(
        redis,
        max_vectors=settings.buffer_max_vectors,
        max_bytes=settings.buffer_max_bytes,
        experience_max_vectors=settings.experience_max_vectors,
        holding=QuarantineBounds(
            settings.quarantine_max_vectors,
            settings.quarantine_max_bytes,
            settings.sender_novel_share,
        ),
        replicas=settings.wait_replicas,
    )


def registry(settings: Settings, redis: Redis) -> Registry:
    """Return the registry with the bound of the settings."""
    return Registry(redis, versions_kept=settings.versions_kept)


def events(settings: Settings, redis: Redis) -> Events:
    """Return the events with the bound of the settings."""
    return Events(redis, events_kept=settings.events_kept)


def labels(settings: Settings, redis: Redis) -> LabelStore:
    """Return the labels with the bound of the settings."""
    return LabelStore(redis, labels_kept=settings.labels_kept)


def traffic(settings: Settings, redis: Redis) -> TrafficStore:
    """Return the reports of scored traffic with the bound of the settings."""
    return TrafficStore(redis, events_kept=settings.events_kept)


@dataclass(frozen=True, slots=True)
class Stores:
    """The adapters; `listening` is a second client, for the subscription."""

    redis: Redis
    listening: Redis
    api_keys: ApiKeys
    detectors: Detectors
    buffer: Buffer
    registry: Registry
    held: HeldRows
    quarantine: Quarantine
    revocations: Revocations
    audit: Audit
    events: Events
    labels: LabelStore
    live: LiveSummaries
    traffic: TrafficStore
    incidents: Incidents
    processes: Processes
    leases: Leases
    due: DueIndex
    words: Words
    templates: Templates

    @classmethod
    async def open(cls, settings: Settings, url: str) -> Self:
        """Return adapters for the store at `url`; each client connects at its first use."""
        redis = await connect(url)
        return cls(
            redis,
            await connect(url, deadline=_LISTENING_SECONDS),
            api_keys(settings, redis),
            detectors(settings, redis),
            buffer(settings, redis),
            registry(settings, redis),
            HeldRows(redis),
            Quarantine(redis),
            Revocations(redis),
            Audit(redis),
            events(settings, redis),
            labels(settings, redis),
            LiveSummaries(redis),
            traffic(settings, redis),
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
