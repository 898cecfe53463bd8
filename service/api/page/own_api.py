"""The page's way to its data: this process's own API, asked in the name of whoever opened it."""

from typing import Any, NamedTuple

import httpx
import orjson
from fastapi import Request

_CREDENTIALS = ("authorization", "cookie", "x-api-key")


class Answer(NamedTuple):
    """What the API answered: the status, and the document or the problem."""

    status: int
    document: Any

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.status < 400

    @property
    def problem(self) -> str | None:
        """Return why there is no data, in the API's own words; None where there is."""
        return None if self.ok else str(self.document.get("detail", self.status))


class OwnApi:
    """Asks the routes of this application without a connection; every check applies as ever."""

    def __init__(self, request: Request) -> None:
        headers = {
            name: value for name in _CREDENTIALS if (value := request.headers.get(name)) is not None
        }
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=request.app, raise_app_exceptions=False),
            base_url="http://localhost",
            headers=headers,
        )

    async def get(self, path: str, **query: str | int | None) -> Answer:
        """Return what `GET path` answers; a `query` that is None is left out."""
        found = {name: value for name, value in query.items() if value is not None}
        response = await self._client.get(path, params=found)
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            document = {"detail": "The service failed; the failure is in its log."}
        return Answer(response.status_code, document)
