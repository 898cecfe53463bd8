"""Processes of the service, killed with -9 at named points and at random moments."""

import asyncio
import random
import time

from tests.faults.catalogue import fault, intact
from tests.faults.load import ClientRecords, Load
from tests.faults.stage import Stage, staged

RESUMES_SECONDS = 15.0
_EXACTLY_ONCE = "none lost, none doubled"


async def _api_killed(point: str, runs: int) -> str:
    """Kill `runs` API processes at `point`, one after the other, while clients send batches."""
    rng, records = random.Random(point), ClientRecords()
    async with staged() as stage:
        await stage.make()
        load = Load(stage, records)
        async with load.ingesting():
            await _killed_at(stage, point, runs, rng)
        await intact(stage, records)
    assert records.resets
    return f"{runs} kills, {len(records.acknowledged)} batches acknowledged, 0 lost or doubled"


async def _killed_at(stage: Stage, point: str, runs: int, rng: random.Random) -> None:
    """Kill `runs` API processes, each at a passage of `point`; then start one that stays."""
    await stage.kill(stage.apis[0])
    for _ in range(runs):
        # If it were killed at the first passage, it would never acknowledge anything.
        api = stage.start_api(ANAMNESIS_CRASH_POINT=f"{point}:{rng.randint(2, 40)}")
        assert await stage.dies(api) == -9, stage.log
    stage.start_api()
    await stage.ready()


@fault(
    "API killed before it writes a batch", f"acknowledged batches: {_EXACTLY_ONCE}",
    short=3, long=200,
)  # fmt: skip
async def api_killed_before_the_write(runs: int) -> str:
    """Kill between the request and the store."""
    return await _api_killed("api.before_buffer_write", runs)


@fault(
    "API killed after it wrote a batch, before it answers",
    f"a repeated batch is stored once: {_EXACTLY_ONCE}",
    short=3, long=200,
)  # fmt: skip
async def api_killed_after_the_write(runs: int) -> str:
    """Kill between the store and the answer."""
    return await _api_killed("api.after_buffer_write", runs)


@fault(
    "API killed while it holds rows back, and while a person decides on them",
    f"rows buffered, held back, released, discarded: {_EXACTLY_ONCE}",
    short=3, long=200,
)  # fmt: skip
async def api_killed_while_rows_are_held_back(runs: int) -> str:
    """Kill while admission holds rows back and a person decides on them."""
    rng, records = random.Random(8), ClientRecords()
    async with staged(workers=1) as stage:
        await stage.make(admission="quarantine")
        load = Load(stage, records)
        await load.send(400)
        await stage.retrained()
        load.scattered = 4
        stop = asyncio.Event()
        person = asyncio.create_task(_decide(stage, records, stop))
        async with load.ingesting(vectors=40):
            await _killed_at(stage, "api.after_buffer_write", runs, rng)
        stop.set()
        released = await person
        await intact(stage, records)
        await stage.retrained()
        await intact(stage, records)
    quarantined = sum(ack.held for ack in records.acknowledged.values())
    discarded = sum(vectors for _, vectors in records.discarded)
    assert min(quarantined, released, discarded) > 0, (quarantined, released, discarded)
    return (
        f"{runs} kills, {len(records.acknowledged)} batches, {quarantined} rows held back, "
        f"{released} of them released, {discarded} discarded, 0 lost or doubled"
    )


async def _decide(stage: Stage, records: ClientRecords, stop: asyncio.Event) -> int:
    """Release and discard the held entries by turns; return how many rows were released."""
    released, turn, path = 0, 0, "/v1/detectors/pump/quarantine"
    while not stop.is_set():
        answer = await stage.ask("GET", path)
        waiting = answer.json()["quarantine"] if answer.status == 200 else []
        for entry in waiting[:3]:
            turn += 1
            decision = "release" if turn % 2 else "discard"
            answer = await stage.ask("POST", f"{path}/{entry['id']}", {"decision": decision})
            # 404: the first call succeeded, and its answer was lost with the process.
            assert answer.status in {200, 404}, answer
            if decision == "release":
                released += entry["vectors"]
            else:
                records.discarded.append((entry["batch_id"], entry["vectors"]))
        await asyncio.sleep(0.01)
    return released


@fault(
    "API killed at every step of a revocation",
    "a repeated call completes it: innocent batches are relearned, "
    f"{_EXACTLY_ONCE}; the clean version serves",
    short=4, long=200,
)  # fmt: skip
async def api_killed_while_revoking(runs: int) -> str:
    """Kill while a learned batch is revoked; the client repeats its request."""
    records, relearned = ClientRecords(), 0
    async with staged(workers=1) as stage:
        await stage.make(keep_learned_seconds=3600)
        load = Load(stage, records)
        for run in range(runs):
            await load.send(40)
            clean = (await stage.retrained())["version"]
            bad, _ = await load.send(40), await load.send(60)
            marked = (await stage.retrained())["version"]
            await load.send(20)
            await stage.kill(stage.apis[0])
            # Before the mark, after it, after the rows held back, after the stream.
            api = stage.start_api(ANAMNESIS_CRASH_POINT=f"api.revoking:{run % 4 + 1}")
            path = "/v1/detectors/pump/revoke"
            asking = asyncio.create_task(stage.ask("POST", path, {"batch": bad}))
            assert await stage.dies(api) == -9, stage.log
            stage.start_api()
            answer = await asking
            assert answer.status == 200, answer
            body = answer.json()
            assert (body["champion"], body["versions"]) == (clean, [marked]), body
            status = await stage.status()
            assert (status["champion"], status["buffered"]) == (clean, 80), status
            relearned += 60
            await intact(stage, records)
        await stage.retrained()
        await intact(stage, records)
    return f"{runs} kills, {relearned} innocent vectors relearned, 0 lost or doubled"


async def _worker_killed(point: str, runs: int, passages: int = 1) -> str:
    """Kill `runs` workers at `point`, each while it learns an experience of its own.

    Each worker first finishes the experience of its predecessor. In one experience a worker passes
    the point at most `passages` times. So it dies in the next experience.
    """
    rng, records, slowest = random.Random(point), ClientRecords(), 0.0
    async with staged() as stage:
        await stage.make()
        load = Load(stage, records)
        patience = await _seconds_of_one_retraining(stage, load)
        await _send_experience(stage, load)
        for _ in range(runs):
            passage = passages + rng.randint(1, passages)
            began = time.monotonic()
            worker = stage.start_worker(ANAMNESIS_CRASH_POINT=f"{point}:{passage}")
            await _until_nothing_waits(stage, worker)
            slowest = max(slowest, time.monotonic() - began)
            while worker.poll() is None:
                await _send_experience(stage, load)
                await _until_nothing_waits(stage, worker)
            assert await stage.dies(worker) == -9, stage.log
        worker = stage.start_worker()
        await stage.until(stage.idle)
        if slowest >= patience:  # perhaps the machine is busier now: measure again
            await stage.kill(worker)
            patience = await _seconds_of_one_retraining(stage, load)
        await intact(stage, records)
        status = await stage.status()
    assert status["learned"] == records.vectors, status
    assert status["parked"] == status["buffered"] == 0, status
    assert slowest < patience, slowest
    return (
        f"{runs} kills, {status['generation']} versions, 0 lost or doubled; "
        f"resumed in {slowest:.1f} s at most"
    )


async def _seconds_of_one_retraining(stage: Stage, load: Load) -> float:
    """Let a worker start and make a version; return how long other workers may take.

    This is the promised time, or three times what an undisturbed worker needs, if that is more.
    """
    await _send_experience(stage, load)
    began = time.monotonic()
    worker = stage.start_worker()
    await stage.until(stage.idle)
    patience = max(RESUMES_SECONDS, 3 * (time.monotonic() - began))
    await stage.kill(worker)
    return patience


async def _send_experience(stage: Stage, load: Load) -> None:
    await load.send(40)
    answer = await stage.ask("POST", "/v1/detectors/pump/retrain", {})
    # 409: the batch was learned between the two requests.
    assert answer.status in {202, 409}, answer


async def _until_nothing_waits(stage: Stage, worker) -> None:
    """Wait until nothing waits to be learned, or the worker is dead."""

    async def worker_is_done() -> bool:
        return worker.poll() is not None or await stage.idle()

    await stage.until(worker_is_done)


def _worker_fault(point: str, broken: str, *, short: int, passages: int = 1) -> None:
    async def run(runs: int) -> str:
        return await _worker_killed(point, runs, passages)

    run.__name__ = "worker_killed_" + point.removeprefix("worker.").replace(".", "_")
    resumes = "on a quiet machine it resumes within 15 s"
    promise = f"one version for each experience: {_EXACTLY_ONCE}; {resumes}"
    fault(broken, promise, short=short, long=200)(run)


_worker_fault("worker.leased", "worker killed after it took the lease", short=0)
_worker_fault("worker.experience_taken", "worker killed after it read the buffer", short=0)
_worker_fault("worker.training", "worker killed while training", short=1, passages=20)
_worker_fault("worker.trained", "worker killed after it received the artifact", short=0)
_worker_fault("worker.before_promote", "worker killed before it promotes", short=1)
_worker_fault("worker.after_promote", "worker killed after it promoted", short=1)


@fault(
    "worker and API killed at random moments", f"{_EXACTLY_ONCE}; no orphans",
    short=0, long=100,
)  # fmt: skip
async def anything_killed_at_any_moment(runs: int) -> str:
    """Kill the API process or the worker, at random moments."""
    rng, records = random.Random(7), ClientRecords()
    async with staged(workers=1) as stage:
        await stage.make(retrain={"min_vectors": 200, "max_age_seconds": None})
        load = Load(stage, records)
        async with load.ingesting(senders=1), load.scoring(rate=50):
            for _ in range(runs):
                # The random moment is what this fault tests; some come after a version or two.
                await asyncio.sleep(rng.uniform(0.0, 12.0))
                if rng.random() < 0.3:
                    await stage.kill(stage.apis[0])
                    stage.start_api()
                    await stage.ready()
                else:
                    await stage.kill(stage.workers[0])
                    stage.start_worker()
        await intact(stage, records)

        async def versions_were_promoted() -> bool:
            return (await stage.status())["generation"] > runs // 10

        # On a busy machine few kills may leave no time for a training.
        await stage.until(versions_were_promoted)
        status = await stage.status()
    assert set(records.score_statuses) <= {200, 409}, records.score_statuses
    return f"{runs} kills, {records.vectors} vectors, {status['generation']} versions, 0 violations"
