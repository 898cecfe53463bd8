"""Calls this process's own API with the credentials of the person who opened the page."""

from typing import Generic, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from fastapi import Request

_CREDENTIALS = (b"authorization", b"cookie", b"x-api-key")

T = TypeVar("T")


class _Problem(msgspec.Struct):
    """The part of a problem document that the page shows."""

    detail: str = "The service failed. Its log says why."


class Answer(NamedTuple, Generic[T]):
    """An answer of the API. It has either a `document` or the text of a `problem`, never both."""

    status: int
    document: T | None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.document is not None


class OwnApi:
    """Calls the routes of this application without a connection. All their checks apply."""

    def __init__(self, request: Request) -> None:
        # As bytes, since a cookie of another service on this host may be no ASCII.
        headers = [(name, value) for name, value in request.headers.raw if name in _CREDENTIALS]
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=request.app, raise_app_exceptions=False),
            base_url="http://localhost",
            headers=headers,
        )

    async def get(self, kind: type[T], path: str, **query: str | int | None) -> Answer[T]:
        """Return the answer of `GET path`, parsed as `kind`. A `query` that is None is left out.

        `path` is quoted here, so names in it are given unquoted.
        """
        given = {name: value for name, value in query.items() if value is not None}
        response = await self._client.get(quote(path), params=given)
        if response.is_success:
            return Answer(response.status_code, msgspec.json.decode(response.content, type=kind))
        try:
            problem = msgspec.json.decode(response.content, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()
        return Answer(response.status_code, None, problem.detail)
