"""Makes, configures, lists, mutes and deletes detectors, and queues their retrainings."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from redis.asyncio import Redis

from models import MIN_VECTORS
from service import log
from service.domain.detector import NAME, Detector, Pointer, resolved
from service.domain.detector_config import DetectorConfig, check_rules
from service.problems import Conflict, UnknownDetector, Unprocessable
from service.store.connection import ask, ask_each
from service.store.detector_names import DetectorNames
from service.store.detector_state import POINTER, pointer, read
from service.store.detectors_lua import CONFIGURE, CREATE, DELETE, FORGET_ANSWERS, MUTE, REQUEST
from service.store.due_index import DueIndex
from service.store.erasure import mark_erased
from service.store.lua import audit_fields
from service.store.redis_keys import NOTIFY, Keys

_log = log.get(__name__)

_ANY = "*"  # stands for every uid in a tombstone
TOMBSTONE_SECONDS = 7 * 24 * 3600  # longer than an API process can be cut off from the store
_AT_ONCE = 100  # detectors read in one round trip
_POLLED_AT_ONCE = 500  # ten thousand pointers at once would exceed the deadline
_ROUNDS = 20  # attempts to make a change while others change too
_CHANGING = "Other requests change the detector at the same time. Repeat the request."


class Detectors:
    """The detectors of the service, at most `max_detectors`, and `max_entities` of templates."""

    def __init__(
        self, redis: Redis, *, max_detectors: int = 1000, max_entities: int = 100_000
    ) -> None:
        self._redis: Any = redis
        self._due = DueIndex(redis)
        self._names = DetectorNames(redis, max_detectors=max_detectors, max_entities=max_entities)

    async def put(
        self, name: str, config: DetectorConfig, *, who: str = ""
    ) -> tuple[bool, Detector]:
        """Make the detector, or replace its config, as `write` does."""
        return await self.write(name, lambda _: config, who=who)

    async def write(
        self, name: str, decide: Callable[[Detector | None], DetectorConfig], *, who: str = ""
    ) -> tuple[bool, Detector]:
        """Make the detector, or change its config; return whether it was made, and the detector.

        `decide` gets the present detector, None if there is none, and returns the new config. It is
        called again if another process changed the detector meanwhile. An equal config makes no new
        revision. Raises the errors of `decide`, Unprocessable for an invalid name, and Conflict if
        there are too many detectors, or if the dimension or the feature names contradict the
        vectors that the detector holds.
        """
        if not NAME.fullmatch(name):
            raise Unprocessable(f"A detector's name must match {NAME.pattern}.")
        for _ in range(_ROUNDS):
            stored = await self.get(name)
            config = decide(stored)
            if stored is None:
                check_rules(config)
                done = await self._create(name, config, who)
            else:
                config = _with_fixed_columns(stored, config)
                check_rules(config)
                done = await self._configure(stored, config, who)
            detector = await self.get(name) if done else None
            if detector is not None:
                await self._due.note(detector)
                return stored is None, detector
        raise Conflict(_CHANGING)

    async def _create(self, name: str, config: DetectorConfig, who: str) -> bool:
        await self._names.claim(name)
        args = {
            "uid": secrets.token_hex(8),
            "config": _json(config),
            "dimension": config.width or "",
            "nonce": secrets.token_hex(8),
            "audited": audit_fields("created", who),
        }
        done = bool(await CREATE(self._redis, Keys(name), args))
        await self._names.add(name)
        return done

    async def create_entity(self, name: str, config: DetectorConfig, *, who: str) -> Detector:
        """Return the detector of an entity; make it with its template's config if there is none.

        Raises Conflict if there are too many entities, or if the template was deleted.
        """
        for _ in range(_ROUNDS):
            detector = await self.get(name)
            if detector is not None:
                return detector
            await self._create(name, config, who)
        raise Conflict(_CHANGING)

    async def _configure(self, stored: Detector, config: DetectorConfig, who: str) -> bool:
        args = {
            "uid": stored.uid,
            "was_revision": stored.config_revision,
            "was_nonce": stored.config_nonce,
            "was_dimension": stored.dimension or "",
            "was_full": int(_holds_data(stored)),
            "was_generation": stored.generation,
            "same": int(config == stored.config),
            "config": _json(config),
            "dimension": resolved(config, stored.chosen).width or "",
            "nonce": secrets.token_hex(8),
            "audited": audit_fields("configured", who),
        }
        return bool(await CONFIGURE(self._redis, Keys(stored.name), args))

    async def get(self, name: str) -> Detector | None:
        """Return the present detector, read in one round trip; None if it does not exist."""
        return (await read(self._redis, [name])).get(name)

    async def list(self) -> Sequence[Detector]:
        """Return all detectors, sorted by name."""
        return await self.existing(await self.names())

    async def existing(self, names: Iterable[str]) -> Sequence[Detector]:
        """Return the existing detectors among `names`, sorted by name."""
        ordered, detectors = sorted(names), dict[str, Detector]()
        for start in range(0, len(ordered), _AT_ONCE):
            detectors |= await read(self._redis, ordered[start : start + _AT_ONCE])
        return [detectors[name] for name in ordered if name in detectors]

    async def names(self) -> set[str]:
        """Return the names of all detectors; one that is being made or deleted may be included."""
        return await self._names.all()

    async def poll(self, names: Iterable[str]) -> dict[str, Pointer]:
        """Return the pointers of those `names` that exist; one round trip reads some hundreds."""
        wanted = [Keys(name) for name in names if NAME.fullmatch(name)]
        pointers = {}
        for start in range(0, len(wanted), _POLLED_AT_ONCE):
            asked = wanted[start : start + _POLLED_AT_ONCE]
            pipe = self._redis.pipeline(transaction=False)
            for keys in asked:
                pipe.hmget(keys.state, POINTER)
            for keys, values in zip(asked, await ask_each(self._redis, pipe), strict=True):
                # A damaged state must not stop the others.
                failed = "reading a detector's champion pointer failed"
                with log.tolerated(_log, failed, detector=keys.name):
                    if values[0] is not None:
                        pointers[keys.name] = pointer(values)
        return pointers

    async def request_retrain(
        self,
        name: str,
        weights: Mapping[str, float] | str | None = None,
        *,
        who: str = "",
        trace: str = "",
    ) -> int:
        """Queue a retraining; return the request's number: it is done once `served` reaches it.

        During a run this queues one more run. `weights` hold for the queued run alone. `trace` is
        the request's trace id. Raises UnknownDetector, and Conflict if fewer vectors are buffered
        than a training needs. One vector is enough if a person labelled it normal.
        """
        detector = await self.get(name)
        args = {
            "least": detector.least if detector else MIN_VECTORS,
            "weights": "" if weights is None else orjson.dumps(weights),
            "trace": trace,
            "audited": audit_fields("retrain", who, "by hand", weights=weights),
        }
        reply = await REQUEST(self._redis, Keys(name), args)
        if reply[0] == b"unknown":
            raise UnknownDetector()
        if reply[0] == b"few":
            parked = f", {reply[2]} more are parked" if reply[2] else ""
            raise Conflict(
                f"{reply[1]} vectors are buffered{parked}; a training needs {MIN_VECTORS}.",
                buffered=reply[1],
                needed=MIN_VECTORS,
            )
        await self._due.refresh(name)
        return int(reply[1])

    async def mute(self, name: str, seconds: float, why: str, who: str) -> float:
        """Mute the detector; 0 seconds end a mute. Return the mute's end in seconds since 1970.

        The end is a time of this process's clock, because processes compare it with their clocks.
        By the store's clock, a mute would last too long if that clock is ahead.
        Raises UnknownDetector.
        """
        until = time.time() + seconds if seconds else 0.0
        args = {
            "ends": round(until * 1000),
            "why": why,
            "who": who,
            "audited": audit_fields("muted" if seconds else "unmuted", who, why, seconds=seconds),
        }
        if not await MUTE(self._redis, Keys(name), args):
            raise UnknownDetector()
        await self._due.refresh(name)
        return until

    async def delete(
        self, name: str, *, who: str = "", check: Callable[[int], None] = lambda _: None
    ) -> None:
        """Delete the detector with everything that it holds; raises UnknownDetector.

        `check` is called with the detector's generation, and may raise an error.

        The tombstone keeps the detector's uid for a week, so that a process can tell a deletion
        from a store that lost its data. The answers to Idempotency-Keys are deleted last. If a
        crash leaves some, they expire; a later detector of the same name ignores them.
        """
        keys, client = Keys(name), self._redis
        while True:
            pipe = client.pipeline(transaction=False).hvals(keys.artifacts)
            pipe.hmget(keys.state, ["uid", "last_version", "generation"])
            digests, (uid, last_version, generation) = await ask(client, pipe.execute())
            if uid is None:
                raise UnknownDetector()
            check(int(generation) if (generation or b"").isdigit() else 0)  # it may be damaged
            await mark_erased(client)
            artifacts = (keys.artifact(digest.decode()) for digest in set(digests))
            args = {
                "uid": uid,
                "last_version": last_version,
                "generation": generation or "",
                "seconds": TOMBSTONE_SECONDS,
                "audited": audit_fields("deleted", who),
            }
            answers, lists = await self._answers(keys)
            key_names, values = DELETE.bound(keys, args)
            if await DELETE.script(
                client, [*key_names, *keys.deleted_with_detector[1:], *lists, *artifacts], values
            ):
                break
        for start in range(0, len(answers), _AT_ONCE):
            named = answers[start : start + _AT_ONCE]
            key_names, values = FORGET_ANSWERS.bound({}, {"uid": uid})
            await FORGET_ANSWERS.script(client, [*key_names, *named], values)
        await self._due.forget(name)
        await self._names.remove(name)
        if await ask(client, client.exists(keys.state)):  # the detector was made again in between
            await self._names.add(name)

    async def mark_deleted(self, name: str, uid: str = "") -> None:
        """Tell every process that the detector with this `uid` is deleted. '' is any uid.

        It is for a detector that the store lost: a restored store may lack a detector that
        processes still serve.
        """
        pipe, seconds = self._redis.pipeline(transaction=True), TOMBSTONE_SECONDS if uid else 60
        pipe.set(Keys(name).tombstone, uid or _ANY, ex=seconds, nx=not uid)
        pipe.publish(NOTIFY, name)
        await ask(self._redis, pipe.execute())

    async def _answers(self, keys: Keys) -> tuple[Sequence[str], Sequence[str]]:
        """Return the keys of all answers to Idempotency-Keys, and the keys of the answer lists."""
        members = await ask(self._redis, self._redis.smembers(keys.answerers))
        lists = [keys.answers(member.decode()) for member in sorted(members)]
        pipe = self._redis.pipeline(transaction=False)
        for one in lists:
            pipe.zrange(one, 0, -1)
        results = await ask(self._redis, pipe.execute())
        return [key.decode() for answers in results for key in answers], lists

    async def is_deleted(self, name: str, uid: str) -> bool:
        """Return whether the detector with this `uid` was deleted; False after a week."""
        mark = await ask(self._redis, self._redis.get(Keys(name).tombstone))
        return mark is not None and mark.decode() in {uid, _ANY}


def _holds_data(detector: Detector) -> bool:
    return detector.buffered + detector.parked + detector.last_version > 0


def _with_fixed_columns(stored: Detector, config: DetectorConfig) -> DetectorConfig:
    """Return `config` with the dimension, context and columns that the held vectors fix.

    Raises Conflict if `config` contradicts the held vectors.
    """
    if not _holds_data(stored):
        return config
    known = stored.config
    if config.dimension not in (None, known.dimension):
        raise Conflict(
            f"The detector holds vectors of dimension {known.dimension}, not {config.dimension}."
        )
    if config.context is None:
        config = replace(config, context=known.context)
    elif config.context != known.context:
        raise Conflict(
            "The context cannot change once the detector holds vectors. Make a new detector."
        )
    config = replace(config, dimension=known.dimension)
    if config.names is not None and config.words != known.words:
        raise Conflict(
            "The categories cannot change once the detector holds rows. Make a new detector."
        )
    if not stored.trained and config.context is None:
        return config
    if config.names is None:
        return replace(config, features=known.features, columns=known.columns)
    renamed = stored.trained and config.names != known.names
    if renamed or _are_numbers(config) != _are_numbers(known):
        raise Conflict("The columns of a trained detector cannot change. Make a new detector.")
    return config


def _are_numbers(config: DetectorConfig) -> list[bool]:
    return [bool(number) for number in config.numbers(config.dimension or 0)]


def _json(config: DetectorConfig) -> bytes:
    return orjson.dumps(config.to_dict())
