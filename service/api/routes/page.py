"""The pages for people: the overview, one detector, one incident, login and the API's docs."""

from functools import cache
from typing import Any
from urllib.parse import quote

import jinja2
import msgspec
from fastapi import APIRouter, Request, Response

from service.api.guard import logged_in, open_to_all
from service.api.incident_documents import Incident
from service.api.page import assets, formats
from service.api.page import detector as detector_page
from service.api.page import incident as incident_page
from service.api.page import overview as overview_page
from service.api.page.own_api import Answer, OwnApi
from service.api.page.time_range import SPANS, parse
from service.api.parts import parts, root_path
from service.api.routes.parameters import Name
from service.counted import counted
from service.domain.attention import DRIFT_NEEDS, drift_kind
from service.domain.detector_status import BrokenStatus
from service.domain.scope import Scope
from service.problems import StoreUnavailable, Unknown

router = APIRouter(include_in_schema=False, dependencies=[])

_POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'"
)
_PASSING = {429, 503}  # a page that failed with one of these tries again
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("service.api.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {
        "asset": assets.address, "spans": list(SPANS), "drift_needs": DRIFT_NEEDS,
        "drift_kind": drift_kind,
    }  # fmt: skip
    environment.filters |= {
        "number": formats.number, "percent": formats.percent, "duration": formats.duration,
        "moment": formats.moment, "counted": counted,
    }  # fmt: skip
    return environment


def _page(request: Request, template: str, /, *, code: int = 200, **values: Any) -> Response:
    session = logged_in(request)
    root = root_path(request)
    path = root + request.url.path
    csrf, scopes = session or (None, frozenset(Scope))  # without a session nothing is hidden
    text = (
        _templates()
        .get_template(template)
        .render(path=path, root=root, csrf=csrf, scopes=scopes, **values)
    )
    headers = {"content-security-policy": _POLICY}
    return Response(text, code, headers, "text/html; charset=utf-8")


def _failed(request: Request, answer: Answer[Any]) -> Response:
    """Return the page to show instead of one that failed. A 401 redirects to the login."""
    if answer.status == 401:
        root = root_path(request)
        here = root + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return Response(status_code=303, headers={"location": f"{root}/login?next={quote(here)}"})
    return _page(
        request,
        "failed.html",
        code=answer.status,
        problem=answer.problem,
        again=answer.status in _PASSING,
        unavailable=answer.status == StoreUnavailable.status,
    )


@router.get("/", dependencies=[open_to_all()])
async def root(request: Request) -> Response:
    """Show the work that waits for a person, the detectors and the service."""
    now = parts(request).stores.clock.last_known()
    period = parse(request.query_params.get("range"), None, None, now)
    shown = await overview_page.overview(OwnApi(request), period, now)
    if not shown.detectors.ok:
        return _failed(request, shown.detectors)
    return _page(request, "overview.html", period=period, **shown._asdict())


@router.get("/detectors/{name}", dependencies=[open_to_all()])
async def detector(request: Request, name: Name) -> Response:
    """Show one detector in one time range."""
    query = request.query_params
    now = parts(request).stores.clock.last_known()
    period = parse(query.get("range"), query.get("from"), query.get("to"), now)
    api = OwnApi(request)
    answer = await api.get(msgspec.Raw, f"/v1/detectors/{name}")
    if answer.document is None:
        return _failed(request, answer)
    status = overview_page.status_of(answer.document)
    if isinstance(status, BrokenStatus):
        return _page(request, "failed.html", problem=status.broken, again=False)
    shown = await detector_page.detector(api, name, status, period)
    return _page(
        request, "detector.html", name=name, period=period, status=status, **shown._asdict()
    )


@router.get("/detectors/{name}/incidents/{incident}", dependencies=[open_to_all()])
async def incident(request: Request, name: Name, incident: str) -> Response:
    """Show one incident with the form for a person's decision."""
    api = OwnApi(request)
    answer = await api.get(Incident, f"/v1/detectors/{name}/incidents/{incident}")
    if answer.document is None:
        return _failed(request, answer)
    shown = await incident_page.incident(api, name, answer.document)
    return _page(request, "incident.html", name=name, incident=answer.document, **shown._asdict())


@router.get("/login", dependencies=[open_to_all()])
async def login(request: Request) -> Response:
    """Ask for an API key."""
    return _page(request, "login.html")


@router.get("/operations", dependencies=[open_to_all()])
async def operations(request: Request) -> Response:
    """Show what to do about each alert. The alerts link to it, so it needs no login."""
    return _page(request, "operations.html")


@router.get("/docs", dependencies=[open_to_all()])
async def docs(request: Request) -> Response:
    """Show the OpenAPI document in a page from which requests can be sent."""
    return _page(request, "docs.html")


@router.get("/static/{digest}/{file}", dependencies=[open_to_all()])
async def static(digest: str, file: str) -> Response:
    """Return a script or a style sheet."""
    asset = assets.assets().get(file)
    if asset is None or digest != assets.digest():
        raise Unknown("There is no such file.")
    return Response(asset.data, 200, _FOR_EVER, asset.content_type)
