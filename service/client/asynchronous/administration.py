"""Calls about the service itself: health, metrics, API keys and the audit trail.

Written by `make docs` from the module of the same name one folder up.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from service.client.answers import ApiKey, AuditEntry, AuditPage, Health, ServiceAnswer, Work
from service.client.asynchronous.connection import AsyncConnection
from service.client.configs import DetectorConfig
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed, nothing


class Administration(AsyncConnection):
    """Looks after a service, and after who may use it."""

    async def live(self) -> Health:
        """Return what `/healthz` says."""
        return await self.send(Call("GET", "/healthz", as_json(Health)))

    async def health(self) -> Health:
        """Return what `/readyz` says."""
        return await self.send(Call("GET", "/readyz", as_json(Health)))

    async def service(self) -> ServiceAnswer:
        """Return how the store, the workers and the API processes are."""
        return await self.send(Call("GET", "/v1/service", as_json(ServiceAnswer)))

    async def work(self) -> Work:
        """Return how many detectors are due or retrained, and the longest wait in seconds."""
        return await self.send(Call("GET", "/v1/work", as_json(Work)))

    async def metrics(self) -> str:
        """Return the page that Prometheus scrapes."""
        return await self.send(Call("GET", "/metrics", lambda answer: answer.text))

    async def template(self, name: str) -> DetectorConfig:
        """Return the config that the detectors of a template's entities are made with."""
        where = f"/v1/templates/{quote(name, safe='')}"
        return await self.send(Call("GET", where, as_json(DetectorConfig)))

    async def create_template(
        self, name: str, config: DetectorConfig | dict[str, Any] | None = None
    ) -> DetectorConfig:
        """Make a template, or change the one that is there; return its config in full."""
        where = f"/v1/templates/{quote(name, safe='')}"
        return await self.send(Call("PUT", where, as_json(DetectorConfig), {"json": config or {}}))

    async def keys(self) -> list[ApiKey]:
        """Return what each stored API key allows."""
        return await self.send(Call("GET", "/v1/keys", listed("keys", ApiKey)))

    async def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        detectors: Sequence[str] | None = None,
        **bounds: Any,
    ) -> ApiKey:
        """Make an API key; its `key` is shown this once.

        `bounds` are `requests_per_second` and `max_body_bytes`.
        """
        asked = {"name": name, "scopes": list(scopes), **bounds}
        sent = {"json": asked | present(detectors=detectors)}
        return await self.send(Call("POST", "/v1/keys", as_json(ApiKey), sent, repeatable=False))

    async def revoke_key(self, key_id: str) -> None:
        """Let nobody in with this key any more."""
        return await self.send(Call("DELETE", f"/v1/keys/{quote(key_id, safe='')}", nothing))

    async def audit(self, name: str | None = None, *, of: str = "keys") -> list[AuditEntry]:
        """Return the audit trail of a detector, else `of` `keys` or `templates`, oldest first."""
        where = "/v1/audit" if name is None else path(name, "audit")
        entries: list[AuditEntry] = []
        after: int | None = 0
        while after is not None:
            call = Call(
                "GET",
                where,
                as_json(AuditPage),
                {"params": {"after": after} | ({"of": of} if name is None else {})},
            )
            page = await self.send(call)
            entries += page["audit"]
            after = page["next"]
        return entries
