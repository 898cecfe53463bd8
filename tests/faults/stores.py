"""The store: killed, frozen, cut off, full, weak, emptied, restored, and without power."""

import asyncio
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.processes.embedded_store import find_server
from tests.faults.catalogue import fault, intact, within
from tests.faults.load import PROMPT_SECONDS, ClientRecords, Load
from tests.faults.proxy import proxied
from tests.faults.stage import DIMENSION, Stage, staged

# The time that the tests themselves may add on a machine that runs all processes at once.
_SLACK_SECONDS = 0.5
_CHECKED_SECONDS = 35.0  # an API process checks the store's settings every 30 s, when it polls


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[Stage, ClientRecords, Load]]:
    """Set up a stage with a champion and no worker, for faults of the store alone."""
    async with staged(workers=1, **settings) as stage:
        records = ClientRecords()
        load = Load(stage, records)
        await stage.make()
        await load.send(100)
        assert (await stage.retrained())["outcome"] == "promoted"
        await stage.kill(stage.workers[0])
        yield stage, records, load


async def second_version(stage: Stage, load: Load) -> None:
    """Let a worker learn version 2, and kill it."""
    worker = stage.start_worker()
    await load.send(100)
    assert (await stage.retrained())["version"] == 2
    await stage.kill(worker)


def scored_all(records: ClientRecords) -> None:
    """Fail unless every request to score was answered with 200."""
    assert set(records.score_statuses) == {200}, records.score_statuses
    assert not records.resets, records.resets


async def _acknowledged_more(stage: Stage, records: ClientRecords) -> float:
    """Return the seconds until ingestion works again."""
    before = len(records.acknowledged)
    return within(5.0, await stage.until(lambda: len(records.acknowledged) > before))


@fault(
    "store killed with -9 every 1 to 2 s under load",
    "no acknowledged vector lost; no scoring error",
    short=2, long=80,
)  # fmt: skip
async def store_killed(runs: int) -> str:
    """Kill and restart the store while eight clients send and four score."""
    rng = random.Random(1)
    # Nothing is learned meanwhile: two minutes of batches are more than the usual bound.
    async with serving(buffer_max_vectors=10_000_000) as (stage, records, load):
        async with load.ingesting(senders=8, vectors=50), load.scoring(rate=100):
            for _ in range(runs):
                await asyncio.sleep(rng.uniform(1.0, 2.0))  # the moment is what is tried
                stage.store.kill()
                await asyncio.to_thread(stage.store.start)
            await _acknowledged_more(stage, records)
        await intact(stage, records)
    scored_all(records)
    return f"{runs} kills, {records.vectors} vectors acknowledged, 0 lost; {_scores(records)}"


@fault("power lost: what was not fsynced vanishes", "no acknowledged vector lost", short=1, long=50)
async def power_lost(runs: int) -> str:
    """Kill the store and cut each of its files back to the last fsync."""
    return await lose_power(runs)


async def lose_power(runs: int, *options: str) -> str:
    """Lose power `runs` times, with `options` for the store; fail if a batch is lost."""
    rng, lost, weak = random.Random(2), 0, {"allow_weak_store": bool(options)}
    with tempfile.NamedTemporaryFile() as journal:
        synced = Path(journal.name)
        with shimmed_store(SHIM_SYNCED=journal.name) as command:
            async with serving(command=command, options=options, **weak) as (stage, records, load):
                async with load.ingesting(senders=4), load.scoring(rate=50):
                    for _ in range(runs):
                        await asyncio.sleep(rng.uniform(0.2, 1.0))  # the moment is what is tried
                        stage.store.kill()
                        lost += _cut_back(stage.store.folder, synced)
                        await asyncio.to_thread(stage.store.start)
                    await _acknowledged_more(stage, records)
                await intact(stage, records)
    scored_all(records)
    return f"{runs} losses of power ({lost} bytes vanished), {records.vectors} vectors, 0 lost"


def _cut_back(folder: Path, journal: Path) -> int:
    """Truncate every file to what was synced of it; return the bytes that vanish."""
    synced: dict[int, int] = {}
    for line in journal.read_text().splitlines():
        size, inode = line.split()
        synced[int(inode)] = int(size)
    vanished = 0
    for path in (folder / "appendonlydir").iterdir():
        stat = path.stat()
        sure = min(stat.st_size, synced.get(stat.st_ino, 0))
        vanished += stat.st_size - sure
        os.truncate(path, sure)
    return vanished


@contextmanager
def shimmed_store(**environment: str) -> Iterator[tuple[str, ...]]:
    """Yield the command of a store that loads `shim.c`, with the variables that it reads."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    source = Path(__file__).with_name("shim.c")
    with tempfile.TemporaryDirectory(prefix="anamnesis-shim-") as folder:
        shim = f"{folder}/shim.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True
        )
        variables = {"LD_PRELOAD": shim, **environment}
        yield ("/usr/bin/env", *(f"{k}={v}" for k, v in variables.items()), *find_server())


async def _without_writes(
    broken: str, seconds: int, harm: Callable[[Stage], Any], heal: Callable[[Stage], Any]
) -> str:
    """Harm the store for some seconds; ingestion must fail promptly, and scoring must continue."""
    async with serving() as (stage, records, load):
        async with load.ingesting(), load.scoring(rate=100):
            await _acknowledged_more(stage, records)
            await _wait_if_coroutine(harm(stage))
            records.slowest_ingest, began = 0.0, time.monotonic()
            refused = records.ingest_statuses[503]
            await stage.until(
                lambda: (
                    time.monotonic() - began > seconds and records.ingest_statuses[503] > refused
                )
            )
            slowest = records.slowest_ingest
            await _wait_if_coroutine(heal(stage))
            back = await _acknowledged_more(stage, records)
        await intact(stage, records)
    scored_all(records)
    assert slowest <= PROMPT_SECONDS + _SLACK_SECONDS, slowest
    return (
        f"{broken} for {seconds} s: 503 within {slowest:.2f} s, {_scores(records)}, "
        f"back after {back:.1f} s"
    )


async def _wait_if_coroutine(harming: Any) -> None:
    if asyncio.iscoroutine(harming):
        await harming


@fault(
    "store paused (SIGSTOP)",
    "503 within 1 s; nothing stored twice; scoring goes on; back within 5 s",
    short=2, long=60,
)  # fmt: skip
async def store_paused(seconds: int) -> str:
    """Freeze the server with its connections open."""
    return await _without_writes(
        "paused",
        seconds,
        lambda stage: stage.store.signal(signal.SIGSTOP),
        lambda stage: stage.store.signal(signal.SIGCONT),
    )


@fault("store read-only", "503 within 1 s; scoring goes on; back within 5 s", short=1, long=60)
async def store_read_only(seconds: int) -> str:
    """Make the server a replica of a server that does not answer."""
    return await _without_writes(
        "read-only",
        seconds,
        lambda stage: stage.redis.execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda stage: stage.redis.execute_command("REPLICAOF", "NO", "ONE"),
    )


@fault("store out of memory", "503 within 1 s; scoring goes on; back within 5 s", short=1, long=60)
async def store_out_of_memory(seconds: int) -> str:
    """Set the server's memory limit to one byte."""
    return await _without_writes(
        "out of memory",
        seconds,
        lambda stage: stage.redis.config_set("maxmemory", "1"),
        lambda stage: stage.redis.config_set("maxmemory", "0"),
    )


@fault(
    "store's disk full",
    "503, or no answer from the store; nothing acknowledged is lost; back within 5 s",
    short=1, long=10,
)  # fmt: skip
async def store_disk_full(runs: int) -> str:
    """Let the append-only file reach a size at which writing fails; the server then exits."""
    async with serving() as (stage, records, load):
        async with load.ingesting(vectors=200), load.scoring(rate=100):
            for _ in range(runs):
                size = sum(p.stat().st_size for p in stage.store.folder.rglob("*") if p.is_file())
                limit = size + 2**20
                pid = stage.store.pid
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                assert stage.store.process is not None
                await stage.until(lambda: stage.store.process.poll() is not None)
                stage.store.kill()
                await asyncio.to_thread(stage.store.start)
                await _acknowledged_more(stage, records)
        await intact(stage, records)
    scored_all(records)
    return f"{runs} times full, {records.vectors} vectors acknowledged, 0 lost; {_scores(records)}"


@fault(
    "connection to the store slow, cut, or reset in the middle of replies",
    "nothing lost or stored twice; scoring goes on; back within 5 s",
    short=1, long=30,
)  # fmt: skip
async def way_to_the_store_broken(runs: int) -> str:
    """Put a proxy between API and store that delays, stalls, resets and cuts."""
    rng = random.Random(3)
    async with serving() as (stage, records, load):
        path = stage.folder / "proxy"
        async with proxied(path, stage.store.folder / "s") as proxy:
            stage.url = proxy.url
            await stage.kill(stage.apis[0])
            stage.start_api()
            await stage.ready()
            await stage.until(lambda: _champion_serves(stage))
            async with load.ingesting(), load.scoring(rate=100):
                for _ in range(runs):
                    proxy.delay = 0.05
                    await asyncio.sleep(rng.uniform(0.2, 0.6))  # how long it is broken
                    proxy.delay = 0.0
                    proxy.reset_replies = 5
                    await stage.until(lambda: not proxy.reset_replies)
                    proxy.passing.clear()
                    await asyncio.sleep(rng.uniform(0.2, 1.5))  # how long it is broken
                    proxy.passing.set()
                    proxy.cut()
                    await asyncio.sleep(rng.uniform(0.0, 0.5))  # how long it is broken
                    await proxy.open()
                    back = await _acknowledged_more(stage, records)
            stage.url = stage.store.url
            await intact(stage, records)
    scored_all(records)
    return (
        f"{runs} rounds, {records.vectors} vectors acknowledged, 0 lost or doubled; "
        f"{_scores(records)}; back after {back:.1f} s"
    )


async def _champion_serves(stage: Stage) -> bool:
    return bool((await stage.status())["champion"])


@fault(
    "store absent when an API process starts",
    "it scores from its disk; ingestion back within 5 s; then it follows the store again",
    short=1, long=20,
)  # fmt: skip
async def store_absent_at_start(runs: int) -> str:
    """Start API processes while the store is down."""
    async with serving() as (stage, records, load):
        await second_version(stage, load)
        slowest = 0.0
        for run in range(runs):
            stage.store.kill()
            await stage.kill(stage.apis[0])
            stage.start_api()
            await stage.ready()
            answer = await stage.ask(
                "POST", "/v1/detectors/pump/score", {"vectors": [[0] * DIMENSION]}
            )
            assert answer.status == 200, answer
            async with load.scoring(rate=50), load.ingesting(senders=1):
                await stage.until(lambda: records.ingest_statuses[503] > 0)
                await asyncio.to_thread(stage.store.start)
                slowest = max(slowest, await _acknowledged_more(stage, records))
                champion = 1 + run % 2
                await stage.promote(champion)
                await stage.until(lambda champion=champion: _serves(records, champion))
            records.ingest_statuses[503] = 0
        await intact(stage, records)
    scored_all(records)
    return f"{runs} starts: {_scores(records)} from disk, ingestion back after {slowest:.1f} s"


def _serves(records: ClientRecords, version: int) -> bool:
    """Return whether the latest 20 answers are from `version`."""
    return {version} == {answer.version for answer in records.scored[-20:]}


@fault(
    "store that gets an eviction policy while it is in use",
    "503 within 35 s, nothing acknowledged is lost; scoring goes on; back within 5 s",
    short=1, long=5,
)  # fmt: skip
async def store_weakened(runs: int) -> str:
    """Let the running store evict keys, which loses batches in silence, and set it back."""
    refused = back = 0.0
    async with serving(buffer_max_vectors=10_000_000) as (stage, records, load):
        async with load.ingesting(), load.scoring(rate=100):
            for _ in range(runs):
                await stage.redis.config_set("maxmemory-policy", "allkeys-lru")
                refusals = records.ingest_statuses[503] + 1
                took = await stage.until(
                    lambda refusals=refusals: records.ingest_statuses[503] > refusals
                )
                refused = max(refused, within(_CHECKED_SECONDS, took))
                await stage.redis.config_set("maxmemory-policy", "noeviction")
                back = max(back, await _acknowledged_more(stage, records))
        await intact(stage, records)
    scored_all(records)
    return (
        f"{runs} times: 503 after {refused:.1f} s, {records.vectors} vectors acknowledged, 0 lost; "
        f"{_scores(records)}; back after {back:.1f} s"
    )


@fault(
    "store without persistence, or with eviction",
    "the start is refused, with the name of the setting",
    short=1, long=1,
)  # fmt: skip
async def store_too_weak(_: int) -> str:
    """Start API and worker over servers that could lose what they acknowledge."""
    weak = (("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru"))
    async with staged(apis=0) as stage:
        for setting, value in weak:
            stage.store.kill()
            stage.store.start(f"--{setting}", value)
            for start in (stage.start_api, stage.start_worker):
                process = start()
                before = len(stage.log)
                assert await stage.dies(process) != 0
                assert setting in stage.log[before:], stage.log
    return f"{', '.join(setting for setting, _ in weak)}: refused by API and worker"


@fault(
    "store emptied under a running API",
    "the champion continues to serve; a metric reports it within 5 s",
    short=1, long=5,
)  # fmt: skip
async def store_emptied(runs: int) -> str:
    """Empty the store by FLUSHALL; the service must report it."""
    slowest = 0.0
    for _ in range(runs):
        async with serving() as (stage, records, load):
            async with load.scoring(rate=100):
                await stage.until(lambda: len(records.scored) > 20)
                await stage.redis.flushall()
                slowest = max(slowest, await _until_alarmed(stage))
                seen = len(records.scored)
                await stage.until(lambda seen=seen: len(records.scored) > seen + 20)
            assert {answer.version for answer in records.scored} == {1}
            scored_all(records)
    return f"{runs} times: version 1 continued to serve, the metric rose within {slowest:.1f} s"


@fault(
    "store restored from an old backup under a running API",
    "no silent downgrade; a metric reports it within 5 s",
    short=1, long=5,
)  # fmt: skip
async def store_restored_from_a_backup(runs: int) -> str:
    """Restore a copy from before the latest promotion."""
    slowest = 0.0
    for _ in range(runs):
        async with serving() as (stage, records, load):
            backup = stage.folder / "backup"
            shutil.copytree(stage.store.folder / "appendonlydir", backup)
            stage.start_worker()
            await load.send(100)
            assert (await stage.retrained())["version"] == 2
            async with load.scoring(rate=100):
                await stage.until(lambda: _serves(records, 2))
                stage.store.kill()
                shutil.rmtree(stage.store.folder / "appendonlydir")
                shutil.copytree(backup, stage.store.folder / "appendonlydir")
                await asyncio.to_thread(stage.store.start)
                slowest = max(slowest, await _until_alarmed(stage))
            assert _serves(records, 2)
            scored_all(records)
    return f"{runs} times: version 2 continued to serve, the metric rose within {slowest:.1f} s"


async def _until_alarmed(stage: Stage) -> float:
    async def metric_has_risen() -> bool:
        metrics = (await stage.ask("GET", "/metrics")).body.decode()
        return any(
            line.startswith("anamnesis_store_regressions_total{") and not line.endswith(" 0.0")
            for line in metrics.splitlines()
        )

    return within(5.0, await stage.until(metric_has_risen))


def _scores(records: ClientRecords) -> str:
    good, asked = records.score_statuses[200], sum(records.score_statuses.values()) + records.resets
    return f"{good} of {asked} scored"
