"""A store that loses state: it returns to an older copy, or dies while it erases."""

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator

import numpy as np
import orjson
import psutil

from models import Version
from service.store.erasure import Erasure, mark_erased
from tests.faults.catalogue import fault, within
from tests.faults.stage import DIMENSION, Stage, staged
from tests.faults.wire import Connection
from tests.restored import copied, put_back
from tests.service.stored import GOOD, Stored
from tests.service.trained import versions

ROWS = np.random.default_rng(0).normal(size=(40, DIMENSION)).astype(np.float32)


@fault(
    "store restored from an older copy, then changed: each version number is given a second time",
    "within 5 s every API process scores with the champion that the store has",
    short=1, long=20,
)  # fmt: skip
async def older_copy_goes_on(runs: int) -> str:
    """Promote version n, restore the state before that, and promote another version n."""
    slowest = 0.0
    async with staged(apis=3) as stage, _connected_to_each(stage) as connections:
        await stage.make()
        stored = Stored(stage.redis)
        for run in range(runs):
            copy = await copied(stage.redis)
            for version in (versions()[run % 2], versions()[1 - run % 2]):
                await put_back(stage.redis, copy)
                await stored.buffer.ingest("pump", ROWS)
                lease = await stored.lease()
                artifact, experience = version.to_bytes(), await stored.take()
                await stored.registry.settle(lease, experience, artifact, GOOD, seconds=0.1)
                await stored.leases.release(lease)
                served = await _seconds_until_served(stage, connections, version)
                slowest = max(slowest, served)
    return (
        f"{runs} times: the second version of a number served by {len(connections)} processes "
        f"within {slowest:.1f} s"
    )


@contextlib.asynccontextmanager
async def _connected_to_each(stage: Stage) -> AsyncIterator[list[Connection]]:
    """Yield one connection to each API process: the others are stopped while it is accepted."""
    async with contextlib.AsyncExitStack() as stack:
        connections = []
        for api in stage.apis:
            others = [other for other in stage.apis if other is not api]
            for other in others:
                other.send_signal(signal.SIGSTOP)
            connections.append(await stack.enter_async_context(Connection(stage.port)))
            assert (await connections[-1].ask("GET", "/healthz")).status == 200
            for other in others:
                other.send_signal(signal.SIGCONT)
        yield connections


async def _seconds_until_served(
    stage: Stage, connections: list[Connection], version: Version
) -> float:
    """Wait until each process answers with the version's own scores; return the seconds."""
    body, expected = orjson.dumps({"vectors": ROWS.tolist()}), version.score(ROWS)

    async def answer_new_scores() -> bool:
        answers = [
            await connection.ask("POST", "/v1/detectors/pump/score", body)
            for connection in connections
        ]
        return all(
            answer.status == 200 and np.allclose(answer.json()["scores"], expected, rtol=1e-6)
            for answer in answers
        )

    return within(5.0, await stage.until(answer_new_scores))


@fault(
    "rewrite of the append-only file killed, its disk full, or its store killed",
    "a rewrite stays due until one succeeds and the deleted data is off the disk",
    short=3, long=30,
)  # fmt: skip
async def rewrite_broken(runs: int) -> str:
    """Break a rewrite in one of three ways, then let another rewrite succeed."""
    async with staged(apis=0) as stage:
        for run in range(runs):
            await stage.redis.mset({f"filler-{key}": run for key in range(100)})
            deleted = os.urandom(64)
            await stage.redis.set("deleted", deleted)
            await stage.redis.delete("deleted")
            await mark_erased(stage.redis)
            await stage.redis.config_set("rdb-key-save-delay", 20_000)
            assert await Erasure(stage.redis).rewrite()
            await _break_rewrite(stage, run % 3)
            await _rewrite_ended(stage, succeeds=False)
            assert await Erasure(stage.redis).rewrite_due(0)
            assert _on_disk(stage, deleted)
            await stage.redis.config_set("rdb-key-save-delay", 0)
            assert await Erasure(stage.redis).rewrite()
            await _rewrite_ended(stage, succeeds=True)
            assert not await Erasure(stage.redis).rewrite_due(0)
            # The store removes its former files in a thread of its own.
            await stage.until(lambda deleted=deleted: not _on_disk(stage, deleted))
    return f"{runs} rewrites broken, {runs} marks stayed, and went with the next rewrite"


def _on_disk(stage: Stage, value: bytes) -> bool:
    """Return whether any file of the store holds `value`."""
    present = False
    for path in stage.store.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            present = present or (path.is_file() and value in path.read_bytes())
    return present


async def _break_rewrite(stage: Stage, way: int) -> None:
    """Kill the rewriting child (way 0), fill its disk (way 1) or kill the store (way 2)."""
    if way == 2:
        stage.store.kill()
        stage.store.start()
        return
    (child,) = psutil.Process(stage.store.pid).children()
    if way == 0:
        child.kill()
    else:  # it cannot write any more, as on a full disk
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


async def _rewrite_ended(stage: Stage, *, succeeds: bool) -> None:
    erasure = Erasure(stage.redis)

    async def rewrite_is_over() -> bool:
        try:
            succeeded = await erasure.rewrite_result()
        except Exception:  # noqa: BLE001 - connections to a store that died break once
            return False
        assert succeeded in (None, succeeds)
        return succeeded is not None

    await stage.until(rewrite_is_over)
