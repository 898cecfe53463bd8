"""Swaps and rollbacks while clients score."""

import asyncio
import time

import psutil

from tests.faults.catalogue import LONG_FORM, fault, intact, within
from tests.faults.load import ClientRecords, Load, p99
from tests.faults.stage import Stage, resources, staged
from tests.faults.stores import scored_all, second_version, serving

RATE = 200.0
_MANY = 16  # connections, so that each of two processes has some of them
QUIET_SECONDS = 5.0
SWAP_SECONDS = 0.3
# The p99 beside swaps is at most this many times the quiet one, or this many seconds above it.
SLOWER, SLOWER_SECONDS = 1.5, 0.3e-3


@fault(
    "200 swaps in 60 s at 200 requests/s",
    "no failed request; p99 at most 1.5 times quiet or 0.3 ms above; memory of two models",
    short=10, long=200,
)  # fmt: skip
async def swaps_under_load(runs: int) -> str:
    """Move the champion between two versions, and compare with the time before."""
    async with serving() as (stage, records, load):
        await second_version(stage, load)
        async with load.scoring(rate=RATE, connections=8):
            await asyncio.sleep(QUIET_SECONDS)  # a measurement takes this time on any machine
            quiet = p99(records.scored)
            seen, before = len(records.scored), resources(stage.apis[0].pid)[0]
            for swap in range(runs):
                due = time.monotonic() + SWAP_SECONDS
                await stage.promote(1 + swap % 2)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            busy, grown = p99(records.scored[seen:]), resources(stage.apis[0].pid)[0] - before
        await intact(stage, records)
        generations = {answer.generation for answer in records.scored}
    scored_all(records)
    assert len(generations) >= runs, len(generations)
    assert grown < 64 * 2**20, grown
    summary = (
        f"{runs} swaps, {len(records.scored)} requests, 0 failed; p99 {quiet * 1e3:.2f} ms quiet, "
        f"{busy * 1e3:.2f} ms swapping; memory +{grown / 2**20:.1f} MiB"
    )
    # Beside other work the comparison means nothing, so only the long form makes it.
    if LONG_FORM.get():
        assert busy <= max(SLOWER * quiet, quiet + SLOWER_SECONDS), summary
    return summary


@fault(
    "rollback under load, in two API processes",
    "old answers back in every process within 2 s", short=2, long=50,
)  # fmt: skip
async def rollback_under_load(runs: int) -> str:
    """Roll back, and wait until no connection gets answers of the newer version any more."""
    slowest = 0.0
    async with serving(apis=2) as (stage, records, load):
        await second_version(stage, load)
        async with load.scoring(rate=RATE, connections=_MANY):
            for _ in range(runs):
                await stage.promote(2)
                await stage.until(lambda: _all_serve(records, 2))
                began = time.monotonic()
                await stage.promote(1)
                await stage.until(lambda: _all_serve(records, 1))
                slowest = max(slowest, within(2.0, time.monotonic() - began))
            spread = [_connections(api.pid) for api in stage.apis]
            assert all(spread) or not LONG_FORM.get(), spread
        await intact(stage, records)
    scored_all(records)
    return f"{runs} rollbacks, back within {slowest:.2f} s; {len(records.scored)} scored, 0 failed"


def _connections(pid: int) -> int:
    """Return how many clients are connected to a process."""
    connections = psutil.Process(pid).net_connections("tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def _all_serve(records: ClientRecords, version: int) -> bool:
    """Return whether the last answers on every connection are from `version`."""
    latest = {answer.connection: answer.version for answer in records.scored[-64:]}
    return len(latest) == _MANY and set(latest.values()) == {version}


@fault(
    "rollback during a retraining", "the running retraining is fenced; its data is learned later",
    short=1, long=20,
)  # fmt: skip
async def rollback_during_a_retraining(runs: int) -> str:
    """Move the champion while the worker trains on it."""
    async with staged(workers=1) as stage:
        records = ClientRecords()
        load = Load(stage, records)
        await stage.make()
        for _ in range(2):
            await load.send(60)
            await stage.retrained()
        await stage.make(model={"hidden": [8], "latent": 2, "epochs": 400})
        for _ in range(runs):
            top = (await stage.status())["champion"]
            await load.send(2000)
            answer = await stage.ask("POST", "/v1/detectors/pump/retrain", {})
            assert answer.status == 202, answer
            await stage.until(lambda: _running(stage))
            await stage.promote(1 if top != 1 else 2)
            await stage.until(stage.idle)
            versions = (await stage.ask("GET", "/v1/detectors/pump/versions")).json()["versions"]
            newest = max(versions, key=lambda record: record["version"])
            assert newest["parent"] != top, (newest, top)
        await intact(stage, records)
    return f"{runs} retrainings fenced, each experience learned by the next, none lost"


async def _running(stage: Stage) -> bool:
    retraining = (await stage.status())["retraining"]
    return bool(retraining["state"] == "running" and retraining["progress"] > 0)
