"""Clients that are too many or too slow, send malformed or repeated requests, or see a shutdown."""

import asyncio
import contextlib
import math
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable

import numpy as np
import orjson

from service.processes.process_table import processor_seconds
from tests.faults.catalogue import LONG_FORM, fault, intact, within
from tests.faults.load import ClientRecords, batch, p99
from tests.faults.stage import DIMENSION, ROOT, Stage
from tests.faults.stores import scored_all, serving
from tests.faults.wire import Answer, Connection, Reset
from tests.waiting import PATIENCE

_SCORE = "/v1/detectors/pump/score"
_FEW, _MANY = 32, 512  # connections that send at any time


@fault(
    "100 equal batches at once under one Idempotency-Key, then a different one", "stored once; 422",
    short=1, long=100,
)  # fmt: skip
async def equal_batches_at_once(runs: int) -> str:
    """Send the same batch on a hundred connections at the same time."""
    async with serving() as (stage, records, _):
        before = (await stage.status())["buffered"]
        for run in range(runs):
            body, key = batch(10_000 + run, 30).tobytes(), f"same-{run}"
            answers = await asyncio.gather(*(_send_normal(stage, body, key) for _ in range(100)))
            assert {answer.status for answer in answers} == {202}
            bodies = [answer.json() for answer in answers]
            assert len({answer["batch_id"] for answer in bodies}) == 1
            firsts = sum(answer["duplicate"] == 0 for answer in bodies)
            # It is 0 if the batch was stored, but the answer to the first request came too late.
            assert firsts <= 1, bodies
            assert sum(answer["duplicate"] for answer in bodies) == 30 * (100 - firsts)
            other = await _send_normal(stage, batch(20_000 + run, 30).tobytes(), key)
            assert other.status == 422, other
        assert (await stage.status())["buffered"] == before + 30 * runs
        assert not records.violations
    return f"{runs} times 100 equal batches: one stored, 99 duplicates, the different one 422"


async def _send_normal(stage: Stage, body: bytes, key: str) -> Answer:
    """Send a batch; repeat it while the answer is 503 (the store is busy), at most `PATIENCE`."""
    head = {"idempotency_key": key, "content_type": "application/octet-stream"}
    deadline = time.monotonic() + PATIENCE
    while True:
        async with Connection(stage.port) as connection:
            answer = await connection.ask("POST", "/v1/detectors/pump/normal", body, **head)
        if answer.status != 503:
            return answer
        assert time.monotonic() < deadline, answer


@fault(
    "more requests than can be served",
    "all answered; a second of processor time answers at least 90 % as many as before",
    short=1, long=24,
)  # fmt: skip
async def overload(runs: int) -> str:
    """Send requests as fast as possible from few connections and from many, by turns.

    The measure is the API's processor time, because this process cannot send as fast as the API
    answers. The processor's own speed changes from turn to turn, so that sums over all turns are
    compared. The short form checks only that each request is answered.
    """
    requests = 3000 if LONG_FORM.get() else 2000
    spent = {_FEW: 0.0, _MANY: 0.0}
    async with serving() as (stage, _, __):
        for turn in range(runs):
            for connections in (_FEW, _MANY) if turn % 2 else (_MANY, _FEW):
                spent[connections] += await _answered(stage, connections, requests)
    ratio = spent[_FEW] / spent[_MANY]
    assert ratio >= 0.9 or not LONG_FORM.get(), spent
    return (
        f"all answered; {ratio:.2f} times as many answers with {_MANY} requests at any time as "
        f"with {_FEW}, in {runs} turns"
    )


async def _answered(stage: Stage, connections: int, requests: int) -> float:
    """Send the requests, each of which must get 200; return the API's processor seconds."""
    body = orjson.dumps({"vectors": np.zeros((64, DIMENSION)).tolist()})
    left = iter(range(requests))

    async def client(connection: Connection) -> None:
        for _ in left:
            answer = await connection.ask("POST", _SCORE, body)
            assert answer.status == 200, answer

    async with contextlib.AsyncExitStack() as stack:
        connected = [
            await stack.enter_async_context(Connection(stage.port)) for _ in range(connections)
        ]
        pid = stage.apis[0].pid
        before = processor_seconds(pid)
        await asyncio.gather(*map(client, connected))
        return processor_seconds(pid) - before


@fault(
    "slow connections of five patterns",
    "closed within 11 s; other clients go on, and the API uses at most a tenth of a core more",
    short=50, long=500,
)  # fmt: skip
async def slow_connections(runs: int) -> str:
    """Score, by turns without slow connections and beside `runs` of them.

    These send nothing, send single bytes, or stop half-way.
    """
    deadlines = {"header_seconds": 5.0, "body_seconds": 5.0, "idle_seconds": 8.0}
    open_for: list[float] = []
    without, beside = [], []
    async with serving(**deadlines) as (stage, records, load):
        async with load.scoring(rate=100, connections=8):
            for _ in range(3 if LONG_FORM.get() else 1):
                # A measurement takes this time on any machine.
                without.append(await _measure_clients(stage, records, asyncio.sleep(6.0)))
                slow_peers = _slow_peers(stage, runs, open_for)
                beside.append(await _measure_clients(stage, records, slow_peers))
        await intact(stage, records)
    scored_all(records)
    p99_quiet, quiet = np.median(without, axis=0)
    p99_busy, busy = np.median(beside, axis=0)
    assert busy - quiet < 0.1 or not LONG_FORM.get(), (without, beside)
    return (
        f"{runs} slow connections, the last closed after {within(11.0, max(open_for)):.1f} s; "
        f"others' p99 {p99_quiet * 1e3:.1f} ms without and {p99_busy * 1e3:.1f} ms beside them; "
        f"the API used {quiet:.2f} and {busy:.2f} of a core"
    )


async def _measure_clients(
    stage: Stage, records: ClientRecords, meanwhile: Awaitable[None]
) -> tuple[float, float]:
    """Return the p99 (seconds) of the scoring clients and the share of a core that the API uses."""
    pid, first = stage.apis[0].pid, len(records.scored)
    before, began = processor_seconds(pid), time.monotonic()
    await meanwhile
    used = (processor_seconds(pid) - before) / (time.monotonic() - began)
    return p99(records.scored[first:]), used


async def _slow_peers(stage: Stage, peers: int, open_for: list[float]) -> None:
    """Open slow connections; add the seconds until the service had closed all."""
    command = (sys.executable, "-m", "tests.faults.slow_peers", str(stage.port), str(peers))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    open_for.append(float((await process.communicate())[0]))


@fault("fuzzed requests", "no undocumented 5xx, every number finite", short=1000, long=1_000_000)
async def fuzzed_requests(runs: int) -> str:
    """Mutate good requests byte by byte and send them as they are."""
    rng, statuses, closed = random.Random(6), dict[int, int](), 0
    async with serving() as (stage, records, _):
        left = iter(range(runs))

        async def client() -> None:
            nonlocal closed
            connection = await Connection(stage.port).__aenter__()
            for _ in left:
                try:
                    answer = await connection.send(_fuzzed(rng))
                except Reset:
                    closed += 1
                    connection = await _reconnected(stage, connection)
                    continue
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                records.judge(answer, records.score_statuses)
                if answer.status == 200 and answer.body:
                    _all_finite(answer)
                if connection.closed:
                    connection = await _reconnected(stage, connection)
            connection.close()

        await asyncio.gather(*(client() for _ in range(32)))
        await intact(stage, records)
    counted = ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
    return f"{runs} requests: {counted}; {closed} closed without an answer; 0 undocumented 5xx"


async def _reconnected(stage: Stage, connection: Connection) -> Connection:
    connection.close()
    return await Connection(stage.port).__aenter__()


_WORDS = (
    b"NaN", b"Infinity", b"-1e999", b"1e-999", b"null", b"true", b'"x"', b"[]", b"{}", b"[[", b"]",
    b"\xff\xfe", b"\\ud800", b"0x1", b"1" * 400, b"9" * 40, b"-0", b"\x00", b",", b"e", b"vectors",
)  # fmt: skip


def _fuzzed(rng: random.Random) -> bytes:
    """Return a request with a mutated body, query or header; its Content-Length is right."""
    rows = [[round(rng.gauss(0, 1), 3) for _ in range(DIMENSION)] for _ in range(rng.randint(1, 3))]
    kind, body = b"application/json", bytearray(orjson.dumps({"vectors": rows}))
    path = b"/v1/detectors/pump/" + rng.choice((b"score", b"score", b"score", b"drift", b"events"))
    if rng.random() < 0.15:
        kind, body = b"application/octet-stream", bytearray(rng.randbytes(4 * DIMENSION))
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0:
                body[at:at] = rng.choice(_WORDS)
            case 1:
                del body[at : at + rng.randint(1, 4)]
            case 2:
                body[at : at + 1] = rng.randbytes(1)
            case _:
                body[at : at + rng.randint(1, 8)] = rng.choice(_WORDS)
    if rng.random() < 0.1:
        query = (b"version=", b"explain=", b"x=")[rng.randrange(3)] + rng.choice(_WORDS)
        path += b"?" + bytes(c for c in query if 33 <= c < 127)
    method = b"POST" if path.partition(b"?")[0].endswith(b"score") else b"GET"
    if rng.random() < 0.05:
        kind = rng.choice((b"text/csv", b"", b"application/x-npy", rng.randbytes(5).hex().encode()))
    head = b"host: localhost\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (kind, len(body))
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, path, head, bytes(body))


def _all_finite(answer: Answer) -> None:
    """Fail on a number that is not finite. orjson itself refuses NaN and Infinity."""
    if "json" in answer.headers.get("content-type", ""):
        document = orjson.loads(answer.body)
        for column in ("scores", "p_values", "severities"):
            assert all(math.isfinite(number) for number in document.get(column, ())), document
    elif "octet-stream" in answer.headers.get("content-type", ""):
        n = int(answer.headers["x-anamnesis-rows"])
        assert np.isfinite(np.frombuffer(answer.body[: 12 * n], "<f4")).all()


@fault(
    "SIGTERM under load", "every request that was read is answered; nothing lost", short=2, long=50
)
async def terminated_under_load(runs: int) -> str:
    """Stop API processes by SIGTERM, one after the other, while clients score and send batches."""
    async with serving() as (stage, records, load):
        async with load.scoring(rate=200, connections=8), load.ingesting():
            for _ in range(runs):
                seen = len(records.scored)
                await stage.until(lambda seen=seen: len(records.scored) > seen + 50)
                old = stage.apis[0]
                stage.start_api()
                assert await stage.kill(old, signal.SIGTERM) == 0, stage.log
        await intact(stage, records)
    scored_all(records)
    return (
        f"{runs} drains, {len(records.scored)} scored, {len(records.acknowledged)} batches: "
        f"0 resets, 0 lost"
    )
