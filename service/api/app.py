"""The application: the only place where the parts of an API process are made and connected."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from service.api import guard, openapi
from service.api.access import Access
from service.api.alarmed_rows import AlarmedRows
from service.api.body_budget import BodyBudget
from service.api.fast_lane.lane import Lane
from service.api.middleware import BodyLimit, Headers
from service.api.normal_batches import Ingest
from service.api.open_inference_errors import ProtocolErrors
from service.api.origin import Hosts, OriginCheck
from service.api.page.changes import Changes
from service.api.parts import Parts
from service.api.responses import install_handlers
from service.api.routes import (
    audit,
    detectors,
    events,
    history,
    incidents,
    keys,
    labels,
    mute,
    normal,
    page,
    process,
    review,
    revoke,
    scoring,
    service,
    session,
    stream,
    templates,
    v2,
    versions,
)
from service.domain.api_key import Grant, keys_in_files
from service.problems import StoreUnavailable
from service.release import release
from service.reread import Reread
from service.scoring.champions import Champions
from service.scoring.core import Scoring
from service.settings import Settings, is_loopback
from service.store.adapters import Stores
from service.swap.watcher import Watcher
from service.telemetry.live_reporter import LiveReporter
from service.telemetry.metrics import Metrics
from service.telemetry.store_metrics import StoreMetrics

ROUTES = (
    process,
    detectors,
    templates,
    scoring,
    normal,
    versions,
    review,
    revoke,
    audit,
    keys,
    v2,
    session,
    stream,
    page,
    events,
    labels,
    incidents,
    history,
    mute,
    service,
)

_FIRST_POLL_SECONDS = 20.0  # most time for loading champions before the first request

DESCRIPTION = """Online anomaly detection that keeps learning what is normal.

Errors are RFC 9457 problems. Rows and columns count from zero. No error repeats values of the
request.
"""


def create_app(settings: Settings, *, place: int = 0) -> FastAPI:
    """Return the application. Nothing runs or connects before its lifespan begins.

    `place` is the number of this process among the API processes that share a folder of metrics.
    Raises ValueError if the settings name no store.
    """
    url = settings.store_url()
    if url is None:
        raise ValueError(
            "ANAMNESIS_REDIS_URL is not set. Set it, or use `anamnesis up`, which starts a store."
        )
    in_files = Reread("API keys in files", functools.partial(keys_in_files, settings))
    access = Access(
        in_files.value, may_be_open=is_loopback(settings.host), insecure=settings.insecure
    )
    hosts = Hosts(settings)
    budget = BodyBudget(settings.bodies_max_bytes, settings.max_body_bytes)
    metrics = Metrics(
        CollectorRegistry(),
        directory=settings.metrics_dir,
        place=place,
        detectors=settings.max_detectors,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        parts = _wired_parts(settings, access, await Stores.open(settings, url), metrics)
        app.state.parts = parts
        # The connections serve some requests themselves, with the lane and the settings.
        lane = Lane(parts.champions, parts.scoring, access, hosts, budget)
        async with _lifetime(parts, in_files):
            yield {"lane": lane, "settings": settings}

    app = FastAPI(
        title="anamnesis",
        version=release("0"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        # `process` has a route of our own instead, since each route must declare its scope.
        openapi_url=None,
    )
    _add_routes(app)
    _describe(app, settings.root_path.rstrip("/"))
    app.add_middleware(BodyLimit, most=settings.max_body_bytes, budget=budget)
    app.add_middleware(OriginCheck, access=access, hosts=hosts)
    app.add_middleware(ProtocolErrors)
    app.add_middleware(Headers)
    return app


def _add_routes(app: FastAPI) -> None:
    """Add all routes and the handlers of errors. Raises TypeError if a route declares no scope."""
    for routes in ROUTES:
        app.include_router(routes.router)
    install_handlers(app)
    for _ in guard.guarded_routes(app):
        pass


def _describe(app: FastAPI, root: str) -> None:
    """Let `app` make its OpenAPI document once, as a document and as bytes: anyone may ask for it.

    `root` is the path under which a proxy shows the service.
    """
    described = app.openapi
    app.openapi = functools.cache(lambda: openapi.completed(guard.with_scopes(app, described())))  # type: ignore[method-assign]
    servers = {"servers": [{"url": root}]} if root else {}
    app.state.openapi = functools.cache(lambda: orjson.dumps(app.openapi() | servers))


@contextlib.asynccontextmanager
async def _lifetime(parts: Parts, in_files: Reread[list[Grant]]) -> AsyncIterator[None]:
    """Load the champions and run the tasks of the process. At the end, close what is open."""
    tasks: list[asyncio.Task[None]] = []
    keys, seconds = parts.stores.api_keys, parts.settings.poll_seconds
    try:
        # If the store does not answer, the process starts anyway: it serves the versions on its
        # disk and polls. If the store could lose acknowledged writes, the start fails.
        try:
            async with asyncio.timeout(_FIRST_POLL_SECONDS):
                await parts.access.refresh(keys)
                await parts.watcher.poll()
        except (StoreUnavailable, TimeoutError):
            await parts.watcher.restore()
        runs = (
            parts.access.run(keys, in_files, seconds),
            parts.watcher.run(),
            parts.reporter.run(),
            parts.metrics.run(),
        )
        tasks.extend(asyncio.create_task(run) for run in runs)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.reporter.close()
        await parts.stores.close()
        parts.metrics.close()


def _wired_parts(settings: Settings, access: Access, stores: Stores, metrics: Metrics) -> Parts:
    champions = Champions(settings.pinned_loaded, settings.loaded_bytes)
    metrics.on_scored = champions.touch
    watcher = Watcher(stores, champions, settings, metrics)
    reporter = LiveReporter(stores, champions, metrics)
    alarmed = AlarmedRows(reporter, stores.traffic, stores.incidents)
    return Parts(
        settings=settings,
        access=access,
        stores=stores,
        champions=champions,
        watcher=watcher,
        scoring=Scoring(champions, (metrics, reporter)),
        reporter=reporter,
        ingest=Ingest(stores, champions, watcher, metrics, alarmed),
        metrics=metrics,
        store_metrics=StoreMetrics(
            champions, watcher.health, buffer_bound=settings.buffer_max_vectors
        ),
        changes=Changes(stores.detectors),
    )
