"""JSON responses, and the handlers that turn every error into a problem document."""

from typing import Any

import msgspec
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from service import log
from service.problems import (
    BadRequest,
    MethodNotAllowed,
    Problem,
    Unknown,
    Unprocessable,
    unexpected,
)
from service.scoring.answers import Reply, as_problem

_log = log.get(__name__)


def answer(document: Any, status: int = 200, **headers: str) -> Response:
    """Return a JSON response. An underscore in a header's name becomes a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = orjson.dumps(document, default=msgspec.to_builtins)
    return Response(body, status, named, "application/json")


def etag(value: int | str) -> str:
    """Return the entity tag of a generation, or of an artifact's sha256."""
    return f'"{value}"'


def respond(reply: Reply) -> Response:
    """Return a reply of the scoring core as a response."""
    response = Response(reply.body, reply.status)
    response.raw_headers = reply.all_headers()
    return response


def problem_response(problem: Problem) -> Response:
    """Return the problem document as a response."""
    return respond(as_problem(problem))


def install_handlers(app: FastAPI) -> None:
    """Make `app` answer every error with a problem that repeats nothing from the request."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_response(error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem: Problem = BadRequest("The request is malformed.")
        if error.status_code == 404:
            problem = Unknown("There is no such path.")
        elif error.status_code == 405:
            allow = {"Allow": ", ".join(_allowed(request))}
            problem = MethodNotAllowed(
                "The path does not allow this method. The header `Allow` lists those that it "
                "allows.",
                headers=allow,
            )
        return problem_response(problem)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = ", ".join(str(part) for problem in error.errors() for part in problem["loc"][:2])
        return problem_response(
            Unprocessable(f"These parts of the request are not valid: {fields}.")
        )

    async def on_disconnect(_: Request, error: Exception) -> Response:
        del error
        return Response(status_code=400)  # the client is gone and will not read it

    async def on_error(_: Request, error: Exception) -> Response:
        problem = unexpected(error)  # the server logs the error
        if name := log.added("request_id"):
            problem.headers["X-Request-ID"] = name
        return problem_response(problem)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_error)


def _allowed(request: Request) -> list[str]:
    """Return the methods that the request's path allows, over all routes."""
    methods = [
        method
        for method in ("GET", "PUT", "PATCH", "POST", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    return ["GET", "HEAD", *methods[1:]] if "GET" in methods else methods
