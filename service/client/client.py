"""The clients of a service."""

from service.client.administration import Administration
from service.client.answers import AuditEntry
from service.client.connection import AsyncConnection, Connection
from service.client.detectors import Detectors
from service.client.incidents import Incidents
from service.client.review import Review
from service.client.vectors import Vectors
from service.client.versions import Versions


class _Calls(Vectors, Detectors, Versions, Incidents, Review, Administration):
    """A method for every route."""


class Client(_Calls, Connection):
    """The client of one service. It has a method for every route.

    >>> from service.client import Client
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.score("pump-7", vectors)["is_anomaly"]
    """

    def audit(self, name: str | None = None, *, of: str = "keys") -> list[AuditEntry]:
        """Return an audit trail, oldest first: of a detector, or `of` `keys` or `templates`."""
        entries: list[AuditEntry] = []
        after: int | None = 0
        while after is not None:
            page = self.audit_page(name, after, of=of)
            entries += page["audit"]
            after = page["next"]
        return entries


class AsyncClient(_Calls, AsyncConnection):
    """The client of one service, whose methods are awaited.

    >>> from service.client import AsyncClient
    >>> async with AsyncClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     (await client.score("pump-7", vectors))["is_anomaly"]
    """

    async def audit(self, name: str | None = None, *, of: str = "keys") -> list[AuditEntry]:
        """Return an audit trail, oldest first: of a detector, or `of` `keys` or `templates`."""
        entries: list[AuditEntry] = []
        after: int | None = 0
        while after is not None:
            page = await self.audit_page(name, after, of=of)
            entries += page["audit"]
            after = page["next"]
        return entries
