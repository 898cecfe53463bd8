"""Revocation: unlearn the rows of one batch, or all rows that one API key sent."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from msgspec import UNSET
from msgspec.structs import replace

from service.api import openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.status import existing, show_own_change
from service.domain.event import Label
from service.domain.incident import event_pattern
from service.domain.provenance import RevocationTarget
from service.domain.revocation_plan import RevocationRequest, Revoked
from service.domain.scope import Scope
from service.problems import Unprocessable

router = APIRouter(prefix="/v1/detectors/{name}", tags=["review"])


@router.post(
    "/revoke",
    summary="Unlearn a batch, or what an API key sent",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "What was revoked, or with `dry_run` what would be.", Revoked)
    | openapi.problems(404, 409, 410, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        request_bodies.Revoke,
        {"key": "9f86d081884c7d65", "why": "press 7 was broken", "dry_run": True},
    ),
)
async def revoke(request: Request, name: Name) -> Response:
    """Unlearn the rows of a batch or of an API key.

    The champion becomes the last version that learned none of them. Other rows that later
    versions learned return to the buffer as far as they are still stored. The labels of the key
    are deleted, and rows that only the key dismissed page again.
    """
    app = parts(request)
    app.check_writable()
    body = await request_bodies.read(request, request_bodies.Revoke)
    if (body.batch is None) == (body.key is None):
        raise Unprocessable("Give either `batch` or `key`.")
    target = (
        RevocationTarget("key", body.key)
        if body.key
        else RevocationTarget("batch", body.batch or "")
    )
    await existing(app, name)
    stored = await app.stores.labels.all(name)
    labels = [label for label in stored if label.sender == body.key]
    dismissed = {
        pattern.id
        for pattern in await app.stores.incidents.dismissed_patterns(name)
        if pattern.sender == body.key
    }
    others = [label for label in stored if label.sender != body.key]
    patterns = (dismissed | _dismissed_by(labels)) - _dismissed_by(others)
    labelled = bool(labels or patterns)
    plan = await app.stores.revocations.plan(name, target, labelled=labelled)
    if body.dry_run:
        return answer(replace(plan.foreseen(), labels=len(labels) if body.key else UNSET))
    who = caller(request).who
    revocation = RevocationRequest(target, who, body.why, body.without_champion, labelled=labelled)
    plan.check(revocation)
    if plan.next_champion is not None and plan.next_champion != plan.champion:
        # Load and verify the version before the champion pointer moves to it.
        await app.watcher.refresh(name)
        await app.watcher.pinned(name, plan.next_champion)
    revoked = await app.stores.revocations.revoke(name, revocation)
    if body.key:
        await app.stores.incidents.delete_patterns(name, sorted(patterns))
        revoked = replace(revoked, labels=await app.stores.labels.sweep(name, body.key, who=who))
    await show_own_change(app, name)
    return answer(revoked)


def _dismissed_by(labels: Sequence[Label]) -> set[str]:
    """Return the ids of the patterns of all events that are labelled normal."""
    return {event_pattern(one.event) for one in labels if one.event and one.label == "normal"}
