"""A real API process inside the test: uvicorn on a free port, over a real store."""

import asyncio
import functools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import httpx
import msgspec
import numpy as np
from fastapi import FastAPI
from redis.asyncio import Redis

from models import Version
from service.api.app import create_app
from service.api.parts import Parts
from service.api.server import Server, make_server
from service.certificate import trusts_own_certificate
from service.domain.version_record import GateRecord, NewRecord, ThresholdRecord
from service.settings import Settings
from service.store.connection import connect
from service.store.retrainings import Retrainings
from tests.waiting import until

GOOD = NewRecord(gate=GateRecord(passed=True), strategy="replay")
BAD = NewRecord(gate=GateRecord(passed=False, reasons=("worse on old normals",)))


@dataclass
class Running:
    """One API process, its client, and methods that do a worker's steps on its store."""

    app: FastAPI
    http: httpx.AsyncClient
    port: int
    server: Server

    @property
    def parts(self) -> Parts:
        return self.app.state.parts

    async def make(self, name: str = "pump", **config: Any) -> None:
        answer = await self.http.put(f"/v1/detectors/{name}", json=config)
        assert answer.status_code in {200, 201}, answer.text

    async def learn(
        self, version: Version, name: str = "pump", *, good: bool = True, **signed: str
    ) -> int:
        """Do a worker's steps: promote `version` for a batch of its dimension."""
        record = GOOD if good else BAD
        threshold = ThresholdRecord(version.threshold, 0.01, {"value": version.threshold})
        record = msgspec.structs.replace(record, threshold=threshold, **signed)
        return await self._write_outcome(
            version.to_bytes(), version.dimension, record, name, good=good
        )

    async def promote(self, artifact: bytes, name: str = "pump") -> int:
        """Promote any bytes, which need not be a version, for a batch of dimension 3."""
        return await self._write_outcome(artifact, 3, GOOD, name, good=True)

    async def _write_outcome(
        self, artifact: bytes, d: int, record: NewRecord, name: str, *, good: bool
    ) -> int:
        stores = self.parts.stores
        X = np.random.default_rng(1).normal(size=(40, d)).astype(np.float32)
        await stores.buffer.ingest(name, X)
        lease = await stores.leases.acquire(name, 30.0)
        assert lease is not None
        await Retrainings(stores.redis).start(lease)
        experience = await stores.buffer.take(name)
        assert experience is not None
        number = await stores.registry.settle(
            lease, experience, artifact, record, seconds=0.5, promoted=good
        )
        await stores.leases.release(lease)
        return number

    async def serve(self, version: Version, name: str = "pump", **signed: str) -> None:
        """Promote `version`, and wait until this process serves it."""
        await self.serving(await self.learn(version, name, **signed), name)

    async def serving(self, number: int, name: str = "pump") -> None:
        """Wait until this process serves version `number`."""

        async def served() -> bool:
            champion = self.parts.champions.get(name)
            return champion is not None and champion.number == number

        await until(served)


@asynccontextmanager
async def running(
    url: str, *, store_seconds: float = 30.0, **settings: Any
) -> AsyncIterator[Running]:
    """Serve until the end of the block.

    A call of the store may take `store_seconds`; after that the answer is 503. This is more than
    the DEADLINE of a real service, because a busy machine may need more.
    """
    all_settings = Settings(redis_url=url, **settings)
    app = create_app(all_settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As in the supervisor's socket: asyncio skips this option if the protocol number is 0.
        # Without it the end of each answer waits 40 ms until the peer acknowledges its beginning.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        server = make_server(app, all_settings)
        server.capture_signals = _nothing  # type: ignore[method-assign]
        patient = functools.partial(_connect, store_seconds)
        with mock.patch("service.store.adapters.connect", patient):
            serving = asyncio.create_task(server.serve(sockets=[listener]))

            async def started() -> bool:
                if serving.done():
                    serving.result()
                    raise AssertionError("the server ended")
                return server.started

            await until(started)
        try:
            base = f"{'https' if all_settings.tls_cert else 'http'}://127.0.0.1:{port}"
            # Without TLS nothing is verified, so loading the authorities would only cost time.
            verify = all_settings.tls_cert and trusts_own_certificate(all_settings)
            options: Any = {"trust_env": False, "timeout": 120, "verify": verify}
            async with httpx.AsyncClient(base_url=base, **options) as http:
                yield Running(app, http, port, server)
        finally:
            server.should_exit = True
            async with asyncio.timeout(120):
                await serving


async def _connect(seconds: float, url: str, *, deadline: float | None = None) -> Redis:
    return await connect(url, deadline=deadline or seconds)


class _nothing:  # noqa: N801 - stands for a method
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
