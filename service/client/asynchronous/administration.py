"""Calls about the service itself: health, metrics, API keys and the audit trail.

Written by `make docs` from the module of the same name one folder up.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from service.client.answers import ApiKey, AuditEntry, AuditPage, Health, ServiceAnswer, Work
from service.client.asynchronous.connection import AsyncConnection
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed, nothing


class Administration(AsyncConnection):
    """Shows the state of a service, and manages its API keys."""

    async def live(self) -> Health:
        """Return the answer of `/healthz`: whether the process is alive."""
        return await self.send(Call("GET", "/healthz", as_json(Health)))

    async def health(self) -> Health:
        """Return the answer of `/readyz`: whether the service is ready."""
        return await self.send(Call("GET", "/readyz", as_json(Health)))

    async def service(self) -> ServiceAnswer:
        """Return the state of the store, the workers and the API processes."""
        return await self.send(Call("GET", "/v1/service", as_json(ServiceAnswer)))

    async def work(self) -> Work:
        """Return how many detectors are due or in retraining, and the longest wait in seconds."""
        return await self.send(Call("GET", "/v1/work", as_json(Work)))

    async def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        return await self.send(Call("GET", "/metrics", lambda answer: answer.text))

    async def keys(self) -> list[ApiKey]:
        """Return every stored API key with what it allows."""
        return await self.send(Call("GET", "/v1/keys", listed("keys", ApiKey)))

    async def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        detectors: Sequence[str] | None = None,
        **bounds: Any,
    ) -> ApiKey:
        """Create an API key. Only this answer shows its secret, as `key`.

        `bounds` may hold `requests_per_second` and `max_body_bytes`.
        """
        asked = {"name": name, "scopes": list(scopes), **bounds}
        sent = {"json": asked | present(detectors=detectors)}
        return await self.send(Call("POST", "/v1/keys", as_json(ApiKey), sent, repeatable=False))

    async def revoke_key(self, key_id: str) -> None:
        """Revoke an API key: the service accepts it no longer."""
        return await self.send(Call("DELETE", f"/v1/keys/{quote(key_id, safe='')}", nothing))

    async def audit(self, name: str | None = None, *, of: str = "keys") -> list[AuditEntry]:
        """Return an audit trail, oldest first: of a detector, or `of` `keys` or `templates`."""
        address = "/v1/audit" if name is None else path(name, "audit")
        entries: list[AuditEntry] = []
        after: int | None = 0
        while after is not None:
            call = Call(
                "GET",
                address,
                as_json(AuditPage),
                {"params": {"after": after} | ({"of": of} if name is None else {})},
            )
            page = await self.send(call)
            entries += page["audit"]
            after = page["next"]
        return entries
