"""Clients that remember the acknowledged batches and the answers."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tests.faults.stage import DIMENSION, Stage
from tests.faults.wire import Answer, Connection, Reset

PROMPT_SECONDS = 1.0  # ingestion answers within this time, whatever the store does


class Ack(NamedTuple):
    """One acknowledged batch: the matrix that was sent, and how many of its rows are held back."""

    key: str
    sent: np.ndarray
    held: int = 0

    @property
    def vectors(self) -> int:
        """The number of vectors."""
        return len(self.sent)

    @property
    def parts(self) -> list[int]:
        """The number of vectors in each part of the batch: parts may end in different places."""
        return [n for n in (self.vectors - self.held, self.held) if n]

    def rows(self) -> Counter[bytes]:
        """Return the rows as they are stored."""
        return Counter(row.tobytes() for row in self.sent)


@dataclass
class ClientRecords:
    """The acknowledgements and answers of all clients."""

    acknowledged: dict[str, Ack] = field(default_factory=dict)  # by batch id
    unanswered: set[str] = field(default_factory=set)  # keys: stored or not
    ingest_statuses: Counter[int] = field(default_factory=Counter)
    score_statuses: Counter[int] = field(default_factory=Counter)
    resets: int = 0
    slowest_ingest: float = 0.0
    violations: list[str] = field(default_factory=list)
    scored: list["Scored"] = field(default_factory=list)
    discarded: list[tuple[str, int]] = field(default_factory=list)  # by a person: batch, vectors

    @property
    def vectors(self) -> int:
        """How many vectors were acknowledged."""
        return sum(ack.vectors for ack in self.acknowledged.values())

    def judge(self, answer: Answer, statuses: Counter[int]) -> None:
        """Count an answer; a 5xx is a violation unless it is the documented 503."""
        statuses[answer.status] += 1
        if answer.status == 503 and "retry-after" in answer.headers:
            return
        if answer.status >= 500:
            self.violations.append(f"I5: {answer.status} {answer.body[:200]!r}")


class Scored(NamedTuple):
    """One answer to one scored vector."""

    connection: int
    version: int
    generation: int
    row: int  # of `probe()`
    score: float
    seconds: float


def p99(scored: list[Scored]) -> float:
    """Return the seconds within which 99 of 100 answers came."""
    return float(np.percentile([answer.seconds for answer in scored], 99))


def probe() -> np.ndarray:
    """Return the 64 vectors that every scoring client scores, `(64, DIMENSION)`."""
    X = np.random.default_rng(64).normal(size=(64, DIMENSION))
    X[::8] *= 6.0  # anomalies among them
    return X.astype(np.float32)


def batch(seed: int, vectors: int, scattered: int = 0) -> np.ndarray:
    """Return normal batch number `seed`, `(vectors, DIMENSION)`, the first rows far out."""
    X = np.random.default_rng(seed).normal(size=(vectors, DIMENSION))
    X[:scattered] *= 30.0 / np.linalg.norm(X[:scattered], axis=1, keepdims=True)
    return X.astype("<f4")


class Load:
    """The clients of one detector on a stage; `scattered` rows of each batch are far out."""

    def __init__(self, stage: Stage, records: ClientRecords, name: str = "pump") -> None:
        self.scattered = 0
        self._stage = stage
        self._records = records
        self._path = f"/v1/detectors/{name}"
        self._batches = 0
        self._connections = 0
        self._stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def ingesting(self, *, senders: int = 4, vectors: int = 20) -> AsyncIterator[None]:
        """Send normal batches during the block, each until it is acknowledged."""
        async with self._running([self._send_forever(vectors) for _ in range(senders)]):
            yield

    @contextlib.asynccontextmanager
    async def scoring(self, *, connections: int = 4, rate: float = 100.0) -> AsyncIterator[None]:
        """Score `rate` vectors a second during the block, however long the answers take."""
        pause = connections / rate
        scorers = [self._score_forever(pause, pause * n / connections) for n in range(connections)]
        async with self._running(scorers):
            yield

    @contextlib.asynccontextmanager
    async def _running(self, clients: list) -> AsyncIterator[None]:
        self._stop.clear()
        tasks = [asyncio.create_task(client) for client in clients]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(*tasks)

    async def send(self, vectors: int = 60) -> str:
        """Send one batch until it is acknowledged; return its id."""
        self._batches += 1
        link = Link(self._stage.port)
        ack = await self._send(self._batches, vectors, link, patience=60.0)
        link.close()
        assert ack is not None, "never acknowledged"
        return ack

    async def _send_forever(self, vectors: int) -> None:
        link = Link(self._stage.port)
        while not self._stop.is_set():
            self._batches += 1
            await self._send(self._batches, vectors, link)
        link.close()

    async def _send(
        self, number: int, vectors: int, link: "Link", patience: float = 15.0
    ) -> str | None:
        """Send batch `number`, under one key, until it is acknowledged or patience ends."""
        records, sent = self._records, batch(number, vectors, self.scattered)
        body, key = sent.tobytes(), f"batch-{number}"
        head = {"idempotency_key": key, "content_type": "application/octet-stream"}
        records.unanswered.add(key)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                answer = await link.ask("POST", f"{self._path}/normal", body, **head)
            except Reset:
                records.resets += 1
                await asyncio.sleep(0.02)
                continue
            took = time.monotonic() - began
            records.slowest_ingest = max(records.slowest_ingest, took)
            records.judge(answer, records.ingest_statuses)
            if answer.status == 202:
                accepted = answer.json()
                records.acknowledged[accepted["batch_id"]] = Ack(key, sent, accepted["quarantined"])
                counted = accepted["accepted"] + accepted["quarantined"]
                if counted != vectors or accepted["duplicate"] not in {0, vectors}:
                    records.violations.append(f"I1: {vectors} were sent, the answer is {accepted}")
                records.unanswered.remove(key)
                return str(accepted["batch_id"])
            if answer.status not in {429, 503}:
                records.violations.append(f"I5: {answer.status} to a batch: {answer.body[:200]!r}")
            await asyncio.sleep(0.05)
        return None

    async def _score_forever(self, pause: float, offset: float) -> None:
        rows, link = probe().astype(float).tolist(), Link(self._stage.port)
        due, number = time.monotonic() + offset, 0
        while not self._stop.is_set():
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            row = number % len(rows)
            number += 1
            await self._score(link, row, json.dumps({"vectors": [rows[row]]}).encode(), due)
        link.close()

    async def _score(self, link: "Link", row: int, body: bytes, due: float) -> None:
        records = self._records
        try:
            answer = await link.ask("POST", f"{self._path}/score", body)
        except Reset:
            records.resets += 1
            return
        records.judge(answer, records.score_statuses)
        if answer.status == 200:
            scored = answer.json()
            # From when it was due, not sent: a slow answer delays the next request too.
            took = time.monotonic() - due
            records.scored.append(
                Scored(
                    link.number,
                    scored["version"],
                    scored["generation"],
                    row,
                    scored["scores"][0],
                    took,
                )
            )


class Link:
    """A connection that is opened again after each loss, and then has another number."""

    _opened = 0

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Connection | None = None
        self.number = 0

    async def ask(self, method: str, path: str, body: bytes, **headers: str) -> Answer:
        if self._connection is None or self._connection.closed:
            Link._opened += 1
            self.number = Link._opened
            self._connection = Connection(self._port)
            try:
                await self._connection.__aenter__()
            except OSError as error:
                self._connection.close()
                raise Reset(repr(error)) from error
        return await self._connection.ask(method, path, body, **headers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
