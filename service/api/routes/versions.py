"""Versions: their records, their artifacts, and which one is champion."""

import asyncio
from typing import Annotated

import msgspec
import numpy as np
from fastapi import APIRouter, Path, Request, Response
from msgspec import UNSET, UnsetType

from models import ArtifactError, Version
from service.api import documents, openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import Parts, parts, root_path
from service.api.responses import answer, etag
from service.api.routes.parameters import Name, expected_generation, is_known
from service.api.routes.queries import MOST, PAGED, is_paged, next_page, whole_number
from service.api.status import existing, show_own_change
from service.domain.chosen_context import ChosenContext
from service.domain.detector import Detector
from service.domain.scope import Scope
from service.domain.standing_labels import StandingLabels, effect_of_move, standing_labels
from service.domain.version_record import StoredVersion, describe
from service.json_value import JsonObject
from service.problems import BadVectors, Gone, Unprocessable, UnsupportedMedia, no_such
from service.scoring.vectors import OCTETS, essence
from service.store.labels import labels_for_threshold

router = APIRouter(prefix="/v1/detectors/{name}", tags=["versions"])

SAFETENSORS = "application/vnd.safetensors"
_LINEAGE_DEPTH = 10_000
_DRAWN, _MOST_DRAWN = 25, 1000
_MOST_NUMBERS = 1_000_000  # most numbers in one answer of drawn vectors

Number = Annotated[str, Path(description="The version's number.", examples=["3"])]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ARTIFACT: openapi.Responses = {
    200: {"description": "safetensors with metadata.", "content": {SAFETENSORS: _BINARY}},
    304: {"description": "The client has it already."},
}


def version_number(text: str) -> int:
    """Return the version number in a path. Raises Unknown if it is not a positive number."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise no_such("version", ".../versions")
    return int(text)


@router.get(
    "/versions",
    summary="List the versions",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Oldest first.", documents.Versions)
    | openapi.problems(404, 422, 503),
    openapi_extra={"parameters": list(PAGED.values())},
)
async def index(request: Request, name: Name) -> Response:
    """Return the records of the latest 1,000 versions, oldest first, or a page, newest first."""
    app = parts(request)
    await existing(app, name)
    if not is_paged(request):
        records = await app.stores.registry.records(name)
        return answer({"versions": [_shown(record) for record in records]})
    limit = whole_number(request, "limit", MOST)
    before = whole_number(request, "after", 10**9, 10**9)
    records = await app.stores.registry.records(name, limit=limit + 1, before=before)
    page = records[: -limit - 1 : -1]
    last = page[-1].record.version if len(records) > limit else None
    return answer({"versions": [_shown(record) for record in page]} | next_page(last))


def _shown(stored: StoredVersion) -> JsonObject:
    """Return the record with `w_prev` and `w_new` as fields of their own."""
    record = stored.to_dict()
    weights = record.get("weights")
    return {**record, **weights} if isinstance(weights, dict) else record


@router.get(
    "/versions/{number}",
    summary="Describe a version",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Its record.", documents.VersionRecord)
    | openapi.problems(404, 503),
)
async def get(request: Request, name: Name, number: Number) -> Response:
    """Return the version's lineage, training, threshold, calibration, gate verdict and state."""
    return answer(_shown(await _record(parts(request), name, number)))


async def _record(app: Parts, name: str, number: str) -> StoredVersion:
    await existing(app, name)
    record = await app.stores.registry.record(name, version_number(number))
    if record is None:
        raise no_such("version", ".../versions")
    return record


@router.get(
    "/versions/{number}/artifact",
    summary="Download a version",
    dependencies=[needs(Scope.ADMIN)],
    response_class=Response,
    responses=_ARTIFACT | openapi.problems(404, 410, 503),
)
async def artifact(request: Request, name: Name, number: Number) -> Response:
    """Return the artifact. The ETag is its sha256; with it in `If-None-Match` the answer is 304."""
    app = parts(request)
    record = (await _record(app, name, number)).record
    data = await app.stores.registry.artifact(name, version_number(number))
    if data is None:
        raise Gone()
    file = f"{name}-{version_number(number)}.safetensors"
    headers = {
        "ETag": etag(record.sha256 or ""),
        "Content-Disposition": f'attachment; filename="{file}"',
    }
    if is_known(request.headers.get("if-none-match"), record.sha256 or ""):
        return Response(status_code=304, headers=headers)
    return Response(data, 200, headers, SAFETENSORS)


@router.get(
    "/versions/{number}/sample",
    summary="Draw rows from a version's generator",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Generated rows like the normals it learned.", documents.Sample)
    | openapi.problems(404, 410, 422, 503),
    openapi_extra={
        "parameters": [
            openapi.query("n", "The number of rows.", maximum=_MOST_DRAWN, default=_DRAWN),
            openapi.query("seed", "The same seed draws the same rows.", minimum=0, default=0),
        ]
    },
)
async def sample(request: Request, name: Name, number: Number) -> Response:
    """Draw rows from the version's generator, as the next training would replay them."""
    app = parts(request)
    n = whole_number(request, "n", _DRAWN, _MOST_DRAWN)
    seed = whole_number(request, "seed", 0, 2**31 - 1, least=0)
    await existing(app, name)
    version = (await app.watcher.pinned(name, version_number(number))).version
    most = _MOST_NUMBERS // version.dimension
    if n > most:
        raise Unprocessable(f"`n` in the query must be at most {most} for vectors this wide.")
    X = await asyncio.to_thread(version.with_faithful_draws().sample, n, seed)
    drawn = {
        "version": version_number(number),
        "features": list(version.features),
        "vectors": version.rows_with_words(X),
        "seed": seed,
        "typical": _typical(version),
    }
    return answer(drawn)


def _typical(version: Version) -> list[documents.TypicalVector]:
    regimes = version.regimes
    rows = (
        version.rows_with_words(np.stack([regime.typical for regime in regimes])) if regimes else []
    )
    return [
        documents.TypicalVector(regime.number, row)
        for regime, row in zip(regimes, rows, strict=True)
    ]


@router.post(
    "/versions",
    summary="Import a version",
    dependencies=[needs(Scope.ADMIN)],
    status_code=201,
    responses=openapi.answers(
        201, "Stored. It serves once it is promoted.", documents.VersionRecord
    )
    | openapi.problems(404, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {"required": True, "content": {SAFETENSORS: _BINARY, OCTETS: _BINARY}}
    },
)
async def post(request: Request, name: Name) -> Response:
    """Verify and store an artifact that `GET .../artifact` or `Version.save` wrote."""
    app = parts(request)
    app.check_writable()
    if essence(request.headers.get("content-type")) not in {SAFETENSORS, OCTETS}:
        raise UnsupportedMedia(
            f"Send an artifact as {SAFETENSORS} or {OCTETS}.", supported=[SAFETENSORS, OCTETS]
        )
    signer = app.watcher.signer
    if signer.required and not signer.signs:
        raise Unprocessable(
            "Only signed versions serve, and this process cannot sign. Set "
            "ANAMNESIS_SIGNING_KEY_FILE."
        )
    detector = await existing(app, name)
    data = await request.body()
    limit = app.settings.artifact_max_bytes
    try:
        version = await asyncio.to_thread(Version.from_bytes, data, max_bytes=limit)
    except ArtifactError:
        raise BadVectors(
            "The artifact cannot be verified, so nothing was imported. Export the version again."
        ) from None
    labels = await labels_for_threshold(app.stores.labels, detector)
    record = msgspec.structs.replace(
        describe(version, detector.config.threshold, labels),
        who=caller(request).who,
        context=_context(detector, version),
        **signer.sign(name, data),
    )
    number = await app.stores.registry.import_version(name, data, record)
    stored = await app.stores.registry.record(name, number)
    assert stored is not None, "records are kept while there are fewer than 10,000"
    location = f"{root_path(request)}/v1/detectors/{name}/versions/{number}"
    return answer(stored.to_dict(), 201, Location=location)


def _context(detector: Detector, version: Version) -> ChosenContext | UnsetType:
    """Return the context that an undecided detector takes over from its first version."""
    if not detector.undecided:
        return UNSET
    if detector.config.dimension not in (None, version.config.columns_in(version.dimension)):
        raise Unprocessable(f"The detector's dimension is {detector.config.dimension}.")
    return ChosenContext(context=version.config.derived_by, why="that of the imported version")


@router.put(
    "/champion",
    summary="Promote a version, or roll back to one",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "It serves.", documents.Promoted, headers=openapi.ETAG)
    | openapi.problems(404, 409, 410, 412, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(request_bodies.Promote, {"version": 2}) | openapi.IF_MATCH,
)
async def champion(request: Request, name: Name) -> Response:
    """Make a version champion by hand: promote or roll back.

    The answer says what the detector forgets by this, and which labels still act.
    """
    app = parts(request)
    app.check_writable()
    body = await request_bodies.read(request, request_bodies.Promote)
    number, why = body.version, body.why or "by hand"
    before = await existing(app, name)
    expected = expected_generation(request.headers.get("if-match"), before.generation)
    # Load and verify the version before the champion pointer moves to it.
    await app.watcher.refresh(name)
    await app.watcher.pinned(name, number)
    generation = await app.stores.registry.set_champion(
        name, number, expected_generation=expected, who=caller(request).who, why=why
    )
    await show_own_change(app, name)
    after = await existing(app, name)
    forgotten = await _forgotten(app, name, before.champion, number)
    vectors = max(0, before.learned - after.learned)
    labels = await _labels_in_effect(app, name, forgotten)
    versions = [entry.record.version for entry in forgotten]
    moved = {
        "champion": number,
        "generation": generation,
        "forgets": {"vectors": vectors, "versions": versions},
        "labels": labels,
        "effect": effect_of_move(number, vectors, labels),
    }
    return answer(moved, ETag=etag(generation))


async def _forgotten(app: Parts, name: str, old: int | None, new: int) -> list[StoredVersion]:
    """Return the versions in the lineage of `old` that are not in that of `new`, oldest first."""
    if old is None or old == new:
        return []
    records = {record.record.version: record for record in await app.stores.registry.records(name)}
    parents = {number: record.record.parent for number, record in records.items()}
    kept = set(_lineage(parents, new))
    forgotten = sorted(number for number in _lineage(parents, old) if number not in kept)
    return [records[number] for number in forgotten if number in records]


async def _labels_in_effect(
    app: Parts, name: str, forgotten: list[StoredVersion]
) -> StandingLabels:
    """Return which labels still have an effect once the lineage lacks the `forgotten` versions."""
    batches = {
        batch
        for entry in forgotten
        if entry.record.experience
        for batch in entry.record.experience.batches
    }
    labels = await app.stores.labels.all(name)
    return standing_labels(
        labels, batches, len(await app.stores.incidents.dismissed_patterns(name))
    )


def _lineage(parents: dict[int, int | None], number: int | None) -> list[int]:
    lineage: list[int] = []
    while number is not None and number not in lineage and len(lineage) < _LINEAGE_DEPTH:
        lineage.append(number)
        number = parents.get(number)
    return lineage
