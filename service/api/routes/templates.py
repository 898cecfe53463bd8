"""Templates: make, read and delete them. An entity of a template is an ordinary detector."""

from fastapi import APIRouter, Request, Response

from service.api import openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import parts
from service.api.request_bodies import MOST_CONFIG
from service.api.responses import answer
from service.api.routes.detectors import affordable
from service.api.routes.parameters import TemplateName
from service.domain.detector_config import DetectorConfig, parse
from service.domain.scope import Scope
from service.problems import PreconditionFailed, no_such

router = APIRouter(prefix="/v1/templates", tags=["templates"])


@router.put(
    "/{name}",
    summary="Make a template, or replace its config",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "Its config in full.", DetectorConfig)
    | openapi.answers(201, "Made; its config in full.", DetectorConfig)
    | openapi.problems(412, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        DetectorConfig, {"threshold": {"fpr": 0.001}, "retrain": {"min_vectors": 500}}
    )
    | openapi.IF_NONE_MATCH,
)
async def put(request: Request, name: TemplateName) -> Response:
    """Store the config for entities that are made from now on. Existing ones keep their config."""
    app = parts(request)
    app.check_writable()
    config = affordable(app, parse(await request_bodies.json_text(request, MOST_CONFIG)))
    new = request.headers.get("if-none-match", "").strip() == "*"
    created = await app.stores.templates.put(name, config, new=new, who=caller(request).who)
    if new and not created:
        raise PreconditionFailed("The template exists already.")
    app.champions.templates |= {name}
    return answer(config.to_dict(), 201 if created else 200)


@router.get(
    "/{name}",
    summary="Read a template's config",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Its config in full.", DetectorConfig)
    | openapi.problems(404, 503),
)
async def get(request: Request, name: TemplateName) -> Response:
    """Return the config that the next new entity gets."""
    config = await parts(request).stores.templates.get(name)
    if config is None:
        raise no_such("template", "/v1/templates")
    return answer(config.to_dict())


@router.delete(
    "/{name}",
    summary="Delete a template without entities",
    dependencies=[needs(Scope.ADMIN)],
    status_code=204,
    response_class=Response,
    responses=openapi.problems(404, 409, 503),
)
async def delete(request: Request, name: TemplateName) -> Response:
    """Delete the template. The answer is 409 while entities of it exist."""
    app = parts(request)
    app.check_writable()
    await app.stores.templates.delete(name, who=caller(request).who)
    app.champions.templates -= {name}
    return Response(status_code=204)
