"""Checks the invariants after any fault: compares the store with the clients' records.

I1  every acknowledged vector is in exactly one place: buffered, quarantined, parked, discarded by a
    person, or consumed. If a version is revoked, the vectors that it consumed and that were kept
    are buffered again;
I2  version numbers have no gaps, and each has one record; generations have no gaps, and each has
    one row of the history; consumed ranges are contiguous;
I3  the champion's artifact exists, is the one that its record names, and loads;
I4  every answer names a version that was champion in the generation that it names; generations
    never go back on one connection; every score is the one that the artifact gives;
I5  the only 5xx is the documented 503 with Retry-After (the clients check each answer);
I6  the memory and the open files of the API processes are bounded;
I7  no process outlives its parent (`staged` checks this at the end of each stage).

The checker reads the store directly, because it checks the adapters too.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from redis.asyncio import Redis

from models import AnamnesisError, Version
from service.store.redis_keys import Keys
from tests.faults.load import ClientRecords, probe
from tests.faults.stage import Stage, resources

TOLERANCE = 1e-5
_REVOKED = ", revoked"
API_BYTES = 400 * 2**20  # resident; a fifth of it is the interpreter and its libraries
API_FILES = 1500


@dataclass
class Stored:
    """Everything that the store holds of one detector."""

    state: dict[str, str]
    stream: list[tuple[str, dict[bytes, bytes]]]
    held: list[tuple[str, dict[bytes, bytes]]]
    sources: dict[int, list[tuple[str, str, int]]]
    revoked: set[int]
    records: list[dict[str, Any]]
    history: list[dict[str, Any]]
    parked: list[dict[str, Any]]

    def number(self, field: str) -> int:
        return int(self.state.get(field) or 0)


async def read_store(redis: Redis, name: str) -> Stored:
    """Read the store."""
    keys = Keys(name)
    state = {k.decode(): v.decode() for k, v in (await redis.hgetall(keys.state)).items()}
    stream, held = await _entries(redis, keys.stream), await _entries(redis, keys.held)
    packed = await redis.hgetall(keys.sources)
    sources = {int(n): orjson.loads(zlib.decompress(data)) for n, data in packed.items()}
    revoked = {int(n) for n in await redis.hkeys(keys.revoked)}
    records = [orjson.loads(text) for text in (await redis.hgetall(keys.versions)).values()]
    history = [orjson.loads(text) for text in await redis.lrange(keys.history, 0, -1)]
    parked = [orjson.loads(text) for text in (await redis.hgetall(keys.parked)).values()]
    records.sort(key=lambda record: record["version"])
    return Stored(state, stream, held, sources, revoked, records, history, parked)


async def _entries(redis: Redis, key: str) -> list[tuple[str, dict[bytes, bytes]]]:
    """Return a stream's entries, read in pieces: a long run leaves a million vectors."""
    entries: list[tuple[str, dict[bytes, bytes]]] = []
    after = "-"
    while page := await redis.xrange(key, after, "+", count=1000):
        entries += [(entry.decode(), fields) for entry, fields in page]
        after = f"({entries[-1][0]}"
    return entries


async def violations(stage: Stage, records: ClientRecords, name: str = "pump") -> list[str]:
    """Return every violated invariant of the stage."""
    stored = await read_store(stage.redis, name)
    return [
        *records.violations,
        *_check_places(stored, records),
        *_check_numbers(stored),
        *await _check_artifact(stage.redis, name, stored),
        *await _check_answers(stage.redis, name, stored, records),
        *_check_bounds(stage),
    ]


def _check_places(stored: Stored, records: ClientRecords) -> Iterable[str]:
    """I1: each part of each acknowledged batch is in exactly one place."""
    places, counted = _located(stored)
    for batch, vectors in records.discarded:
        places.setdefault(batch, []).append(("discarded", vectors))
    for batch, ack in records.acknowledged.items():
        expected, found = Counter(ack.parts), places.get(batch, [])
        revoked = Counter(n for place, n in found if place.endswith(_REVOKED))
        elsewhere = Counter(n for place, n in found if not place.endswith(_REVOKED))
        # A part that a revoked version consumed may be in one other place, or in none.
        if elsewhere - expected or expected - elsewhere - revoked:
            found_in = [place for place, _ in found]
            yield f"I1: batch {batch} ({ack.vectors} vectors) is in {found_in or 'no place'}"
    yield from _check_contents(stored, records)
    keys = Counter(ack.key for ack in records.acknowledged.values())
    for key, times in keys.items():
        if times > 1:
            yield f"I1: {key} is stored as {times} batches"
    stray = set(places) - set(records.acknowledged)
    if len(stray) > len(records.unanswered):
        yield f"I1: {len(stray)} batches are held that no client knows of"
    for place in ("buffered", "quarantined", "parked"):
        if counted[place] != stored.number(place):
            yield f"I1: {place} is {stored.number(place)}, and {counted[place]} are there"
    counters = ("buffered", "quarantined", "parked", "consumed", "discarded")
    total = sum(stored.number(counter) for counter in counters)
    if not records.unanswered and total != records.vectors:
        yield f"I1: {records.vectors} vectors were acknowledged, {total} are accounted for"


def _check_contents(stored: Stored, records: ClientRecords) -> Iterable[str]:
    """I1: the stored rows of a batch are those that were sent, each at most once."""
    rows: dict[str, Counter[bytes]] = {}
    for _, fields in (*stored.stream, *stored.held):
        width = 4 * int(fields[b"d"])
        data = fields[b"x"]
        parts = (data[at : at + width] for at in range(0, len(data), width))
        rows.setdefault(fields[b"b"].decode(), Counter()).update(parts)
    for batch, ack in records.acknowledged.items():
        here = rows.get(batch, Counter())
        whole = here.total() == ack.vectors
        if here - ack.rows() or (whole and ack.rows() != here):
            yield f"I1: the batch of {ack.key} is not what was sent"


def _located(stored: Stored) -> tuple[dict[str, list[tuple[str, int]]], Counter[str]]:
    """Return where each part of each batch is, and how many vectors wait in each place."""
    places: dict[str, list[tuple[str, int]]] = {}
    counted = Counter[str]()

    def add(batch: str, place: str, vectors: int) -> None:
        places.setdefault(batch, []).append((place, vectors))
        counted[place] += vectors

    cursor = _id(stored.state["cursor"])
    for entry, fields in stored.stream:
        at = _id(entry)
        if at > cursor:
            place = "buffered"
        elif any(
            _id(experience["first"]) < at <= _id(experience["last"]) for experience in stored.parked
        ):
            place = "parked"
        else:
            continue  # learned, and not erased yet
        add(fields[b"b"].decode(), place, int(fields[b"n"]))
    for _, fields in stored.held:
        add(fields[b"b"].decode(), "quarantined", int(fields[b"n"]))
    champions = {row["version"] for row in stored.history}
    for number in champions & set(stored.sources):  # also a rejected one that a person promoted
        place = f"consumed by version {number}" + _REVOKED * (number in stored.revoked)
        for batch, _, vectors in stored.sources[number]:
            add(batch, place, vectors)
    return places, counted


def _check_numbers(stored: Stored) -> Iterable[str]:
    """I2: versions, generations and ranges."""
    versions = [record["version"] for record in stored.records]
    if versions != list(range(1, stored.number("last_version") + 1)):
        yield f"I2: versions {versions} with a last number of {stored.number('last_version')}"
    generations = [row["generation"] for row in stored.history]
    if generations != list(range(1, stored.number("generation") + 1)):
        yield f"I2: generations {generations} at generation {stored.number('generation')}"
    if stored.history and (stored.history[-1]["version"] or 0) != stored.number("champion"):
        yield f"I2: champion {stored.number('champion')}, the history ends {stored.history[-1]}"
    strangers = {row["version"] for row in stored.history} - set(versions) - {None}
    if strangers:
        yield f"I2: champions without a record: {strangers}"
    ranges = {(r["experience"]["first"], r["experience"]["last"]) for r in stored.records
              if "experience" in r}  # fmt: skip
    ranges |= {(experience["first"], experience["last"]) for experience in stored.parked}
    at = "0-0"
    for first, last in sorted(ranges, key=lambda r: _id(r[0])):
        if first != at:
            yield f"I2: a range ends at {at}, and the next one begins after {first}"
        at = last
    if ranges and at != stored.state["cursor"]:
        yield f"I2: the cursor is {stored.state['cursor']}, the last range ends at {at}"


async def _check_artifact(redis: Redis, name: str, stored: Stored) -> list[str]:
    """I3: the champion's artifact."""
    champion = stored.number("champion")
    if not champion:
        return []
    data = await _bytes(redis, name, champion)
    digest = next((r["sha256"] for r in stored.records if r["version"] == champion), None)
    if data is None:
        return [f"I3: champion {champion} has no artifact"]
    if hashlib.sha256(data).hexdigest() != digest:
        return [f"I3: the artifact of champion {champion} is not the one its record names"]
    try:
        Version.from_bytes(data)
    except AnamnesisError as error:
        return [f"I3: champion {champion} does not load: {error}"]
    return []


async def _check_answers(
    redis: Redis, name: str, stored: Stored, records: ClientRecords
) -> list[str]:
    """I4: the answers are those of the versions that they name."""
    bad = []
    champions = {row["generation"]: row["version"] for row in stored.history}
    latest: dict[int, int] = {}
    expected: dict[int, np.ndarray | None] = {}
    for answer in records.scored:
        if champions.get(answer.generation) != answer.version:
            bad.append(f"I4: version {answer.version} answered as generation {answer.generation}")
        if answer.generation < latest.get(answer.connection, 0):
            bad.append(f"I4: generation {answer.generation} after {latest[answer.connection]}")
        latest[answer.connection] = answer.generation
        if answer.version not in expected:
            data = await _bytes(redis, name, answer.version)
            expected[answer.version] = Version.from_bytes(data).score(probe()) if data else None
        scores = expected[answer.version]
        if scores is None:
            bad.append(f"I4: version {answer.version} answered and is not kept")
        elif abs(answer.score - scores[answer.row]) > TOLERANCE * max(1.0, abs(scores[answer.row])):
            bad.append(
                f"I4: version {answer.version} scored {answer.score}, not {scores[answer.row]}"
            )
    return bad


def _check_bounds(stage: Stage) -> Iterable[str]:
    """I6: memory and open files of the API processes that run."""
    for api in stage.apis:
        if api.poll() is None:
            memory, files = resources(api.pid)
            if memory > API_BYTES or files > API_FILES:
                yield f"I6: an API process holds {memory / 2**20:.0f} MiB and {files} files"


async def _bytes(redis: Redis, name: str, version: int) -> bytes | None:
    keys = Keys(name)
    digest = await redis.hget(keys.artifacts, str(version))
    return await redis.get(keys.artifact(digest.decode())) if digest else None


def _id(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)
