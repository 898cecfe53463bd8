"""Trainings that go wrong, artifacts that are not intact, workers that race, clocks that jump."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models import ArtifactError, Version
from service.store.redis_keys import Keys
from tests.faults.catalogue import LONG_FORM, fault, intact
from tests.faults.load import ClientRecords, Load
from tests.faults.stage import DIMENSION, ROOT, Stage, staged
from tests.faults.stores import serving, shimmed_store
from tests.service.trained import versions

MAX_BYTES = 2**24


# Every Python process reads this when it starts; it makes the trainer's optimiser write a NaN.
_NOT_FINITE = """
import sys
if "service.trainer" in sys.orig_argv:
    import torch
    step = torch._fused_adam_
    def poisoned(parameters, *arguments, **named):
        step(parameters, *arguments, **named)
        parameters[0].fill_(float("nan"))
    torch._fused_adam_ = poisoned
"""


async def _parked_after_three(environment: dict[str, str]) -> str:
    """Let trainings fail under `environment`; without it, later data is learned."""
    async with staged(workers=1) as stage:
        (stage.folder / "sitecustomize.py").write_text(_NOT_FINITE)
        records = ClientRecords()
        load = Load(stage, records)
        await stage.make()
        await load.send(60)
        assert (await stage.retrained())["version"] == 1
        await stage.kill(stage.workers[0])
        harmful = {k: v.format(folder=stage.folder) for k, v in environment.items()}
        stage.start_worker(**harmful)
        await load.send(60)
        outcome = await stage.retrained()
        assert outcome["outcome"] == "failed", outcome
        status = await stage.status()
        assert (status["champion"], status["parked"]) == (1, 60), status
        await stage.kill(stage.workers[0])
        stage.start_worker()
        await load.send(60)
        assert (await stage.retrained())["version"] == 2
        await intact(stage, records)
        return f"parked after three attempts ({outcome['reasons'][0]}), the next was learned"


@fault(
    "training whose loss is not finite",
    "never promoted; parked after three attempts; later data learned",
    short=1, long=3,
)  # fmt: skip
async def training_not_finite(runs: int) -> str:
    """Let the optimiser write a NaN at every step."""
    return [await _parked_after_three({"PYTHONPATH": "{folder}"}) for _ in range(runs)][-1]


@fault(
    "training that takes more memory than it may",
    "parked after three attempts; later data learned",
    short=0, long=3,
)  # fmt: skip
async def training_out_of_memory(runs: int) -> str:
    """Allow less memory than the libraries need."""
    limit = {"ANAMNESIS_TRAINING_MEMORY_BYTES": str(2**28)}
    return [await _parked_after_three(limit) for _ in range(runs)][-1]


@fault(
    "training that hangs", "stopped and started again; the next training succeeds", short=1, long=10
)  # fmt: skip
async def training_hangs(runs: int) -> str:
    """Freeze the trainer; the worker kills it and starts another."""
    async with staged(workers=1, training_stall_seconds=5.0) as stage:
        records = ClientRecords()
        load = Load(stage, records)
        await stage.make()
        await load.send(60)
        # The worker waits longer for a trainer that still loads its libraries.
        await stage.retrained()
        for run in range(runs):
            (warm,) = _trainers(stage.workers[0].pid)
            os.kill(warm, signal.SIGSTOP)
            await load.send(60)
            answer = await stage.ask("POST", "/v1/detectors/pump/retrain", {})
            assert answer.status == 202, answer

            async def learned(run: int = run) -> bool:
                return (await stage.status())["champion"] == run + 2

            await stage.until(learned)
            assert _trainers(stage.workers[0].pid) != [warm]
        await intact(stage, records)
    return f"{runs} frozen trainers replaced, {runs} versions"


def _trainers(pid: int) -> list[int]:
    """Return the worker's children that run the trainer's program.

    A child frozen earlier, between fork and exec, would freeze the worker that waits for it.
    """
    processes = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in processes if b"service.trainer" in _command(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@fault("artifact flipped, cut, grown or with NaN", "every one is detected", short=300, long=10_000)
async def artifact_damaged(runs: int) -> str:
    """Damage real artifacts at random and load them."""
    await asyncio.sleep(0)
    rng, whole, counts = random.Random(4), versions()[1].to_bytes(), [0, 0, 0, 0]
    for _ in range(runs):
        damaged, kind = bytearray(whole), rng.randrange(10)
        if kind < 7:
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        elif kind == 7:
            del damaged[rng.randrange(len(whole)) :]
        elif kind == 8:
            damaged += bytes(rng.randrange(1, 64))
        else:
            at = rng.randrange(len(whole) - 4) & ~3
            damaged[at : at + 4] = np.float32(np.nan).tobytes()
        if bytes(damaged) == whole:
            continue
        counts[max(0, kind - 6)] += 1
        try:
            Version.from_bytes(bytes(damaged), max_bytes=MAX_BYTES)
        except ArtifactError:
            continue
        raise AssertionError(f"damage of kind {kind} went undetected")
    flips, cuts, grown, nans = counts
    return f"{flips} flips, {cuts} cuts, {grown} grown, {nans} with NaN: all detected"


@fault(
    "artifact damaged in the store",
    "the old version continues to serve; no crash loop",
    short=1,
    long=10,
)
async def artifact_damaged_in_the_store(runs: int) -> str:
    """Damage the next champion's artifact before anybody loads it."""
    async with serving() as (stage, records, load):
        keys = Keys("pump")
        stage.start_worker()
        async with load.scoring(rate=50):
            for _ in range(runs):
                await load.send(60)
                number = (await stage.retrained())["version"]
                await _serve(stage, number)
                await _serve(stage, 1)
                digest = await stage.redis.hget(keys.artifacts, str(number))
                key = keys.artifact(digest.decode())
                whole = await stage.redis.get(key)
                await stage.redis.setrange(key, len(whole) // 2, b"\x00\xff\x00\xff")
                await stage.kill(stage.apis[0])  # it had the version in memory
                stage.start_api()
                await stage.ready()
                answer = await stage.ask("PUT", "/v1/detectors/pump/champion", {"version": number})
                refused = answer.status
                seen = len(records.scored)
                await stage.until(lambda seen=seen: len(records.scored) > seen + 20)
                assert records.scored[-1].version == 1, records.scored[-1]
                await stage.redis.set(key, whole)
                await _serve(stage, 1)
        records.resets = 0  # of the process that was killed on purpose
        await intact(stage, records)
    return f"{runs} damaged: version 1 continued to serve (promoting one answers {refused})"


async def _serve(stage: Stage, number: int) -> None:
    """Make version `number` champion and wait until it serves."""
    await stage.promote(number)

    async def version_is_served() -> bool:
        answer = await stage.ask("POST", "/v1/detectors/pump/score", {"vectors": [[0] * DIMENSION]})
        return answer.status == 200 and answer.json()["version"] == number

    await stage.until(version_is_served)


@fault(
    "8 workers race with a lease of 50 ms; some are frozen until it is over, then continued",
    "no duplicate version; every stale promotion refused",
    short=20, long=1000,
)  # fmt: skip
async def workers_race(runs: int) -> str:
    """Promote as fast as the store can, from eight processes that freeze at random."""
    return await _race(runs, (), lambda _: None)


@fault(
    "store's clock jumps by an hour, forwards and back, while workers race",
    "no duplicate version; every stale promotion refused",
    short=10, long=300,
)  # fmt: skip
async def clock_jumps(runs: int) -> str:
    """Shift the store's clock."""
    with (
        tempfile.NamedTemporaryFile("w") as offset,
        shimmed_store(SHIM_OFFSET=offset.name) as command,
    ):
        clock = Path(offset.name)
        return await _race(runs, command, lambda seconds: clock.write_text(str(seconds)))


def _start_racer(stage: Stage, artifact: Path, seed: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.racer", stage.url, artifact, str(seed)],
        cwd=ROOT, stdout=subprocess.PIPE, env=stage.settings().environment(),
    )  # fmt: skip


async def _race(runs: int, command: tuple[str, ...], clock: Callable[[int], object]) -> str:
    rng, records = random.Random(5), ClientRecords()
    async with staged(command=command) as stage:
        await stage.make()
        load = Load(stage, records)
        artifact = stage.folder / "artifact"
        artifact.write_bytes(versions()[0].to_bytes())
        racers = [_start_racer(stage, artifact, seed) for seed in range(8)]
        try:
            async with load.ingesting(senders=2, vectors=40):
                while (await stage.status())["generation"] < runs:
                    frozen = rng.choice(racers)
                    frozen.send_signal(signal.SIGSTOP)
                    clock(rng.choice((-3600, 0, 3600)))
                    await asyncio.sleep(rng.uniform(0.02, 0.2))  # past the lease, or not
                    frozen.send_signal(signal.SIGCONT)
        finally:
            for racer in racers:
                racer.send_signal(signal.SIGCONT)
                racer.terminate()
        replies = [racer.communicate(timeout=30)[0].split() for racer in racers]
        clock(0)
        await intact(stage, records)
        status = await stage.status()
    # A racer that ended before it began prints nothing.
    promoted, refused = (sum(int(words[n]) for words in replies if words) for n in (0, 1))
    # If a racer ends before the answer to its promotion comes, nobody counts that promotion.
    assert 0 <= status["generation"] - promoted <= len(racers), (status["generation"], promoted)
    assert refused or not LONG_FORM.get(), "no promotion was stale"
    return f"{status['generation']} promotions, {refused} stale ones refused, 0 duplicates"
