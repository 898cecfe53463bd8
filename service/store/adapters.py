"""All store adapters of a process, with the bounds of its settings. They share one client."""

from typing import Self

from redis.asyncio import Redis

from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.audit_trail import Audit
from service.store.batched_reads import BatchedReads
from service.store.buffer import Buffer
from service.store.clock import StoreClock
from service.store.connection import connect
from service.store.detectors import Detectors
from service.store.due_index import DueIndex
from service.store.erasure import Erasure
from service.store.events import Events
from service.store.held_rows import HeldRows
from service.store.incidents import Incidents
from service.store.labels import LabelStore
from service.store.leases import Leases
from service.store.live_summaries import LiveSummaries
from service.store.processes import Processes
from service.store.quarantine import Quarantine
from service.store.registry import Registry
from service.store.retrainings import Retrainings
from service.store.revocations import Revocations
from service.store.templates import Templates
from service.store.traffic import TrafficStore
from service.store.words import Words

_LISTENING_SECONDS = 5.0  # longer than the poll interval of a subscription


class Stores:
    """The adapters over `redis`. `listening` is a second client, for a subscription."""

    def __init__(self, settings: Settings, redis: Redis, listening: Redis | None = None) -> None:
        self.redis = redis
        self.clock = StoreClock(redis)
        self.listening = listening or redis
        self.api_keys = ApiKeys(redis, most=settings.max_keys)
        self.detectors = Detectors(
            redis, max_detectors=settings.max_detectors, max_entities=settings.max_entities
        )
        self.buffer = Buffer(redis, settings)
        self.registry = Registry(redis, versions_kept=settings.versions_kept)
        self.events = Events(redis)
        self.labels = LabelStore(redis, labels_kept=settings.labels_kept)
        self.traffic = TrafficStore(redis, events_kept=settings.events_kept)
        self.held = HeldRows(redis)
        self.quarantine = Quarantine(redis)
        self.revocations = Revocations(redis)
        self.retrainings = Retrainings(redis)
        self.audit = Audit(redis)
        self.live = LiveSummaries(redis)
        self.incidents = Incidents(redis)
        self.batched = BatchedReads(redis)
        self.processes = Processes(redis)
        self.leases = Leases(redis)
        self.due = DueIndex(redis)
        self.words = Words(redis)
        self.templates = Templates(redis)
        self.erasure = Erasure(redis)

    @classmethod
    async def open(cls, settings: Settings, url: str) -> Self:
        """Return adapters for the store at `url`; each client connects at its first use."""
        listening = await connect(url, deadline=_LISTENING_SECONDS)
        return cls(settings, await connect(url), listening)

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()
        await self.listening.aclose()
