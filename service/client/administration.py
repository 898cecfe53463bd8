"""Calls about the service itself: health, metrics, API keys and the audit trail."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from service.client.answers import ApiKey, AuditEntry, AuditPage, Health, ServiceAnswer, Work
from service.client.connection import Connection
from service.client.encoding import path, present
from service.client.transport import Call, as_json, listed, nothing


class Administration(Connection):
    """Shows the state of a service, and manages its API keys."""

    def live(self) -> Health:
        """Return the answer of `/healthz`: whether the process is alive."""
        return self.send(Call("GET", "/healthz", as_json(Health)))

    def health(self) -> Health:
        """Return the answer of `/readyz`: whether the service is ready."""
        return self.send(Call("GET", "/readyz", as_json(Health)))

    def service(self) -> ServiceAnswer:
        """Return the state of the store, the workers and the API processes."""
        return self.send(Call("GET", "/v1/service", as_json(ServiceAnswer)))

    def work(self) -> Work:
        """Return how many detectors are due or in retraining, and the longest wait in seconds."""
        return self.send(Call("GET", "/v1/work", as_json(Work)))

    def metrics(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        return self.send(Call("GET", "/metrics", lambda answer: answer.text))

    def keys(self) -> list[ApiKey]:
        """Return every stored API key with what it allows."""
        return self.send(Call("GET", "/v1/keys", listed("keys", ApiKey)))

    def create_key(
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
        return self.send(Call("POST", "/v1/keys", as_json(ApiKey), sent, repeatable=False))

    def revoke_key(self, key_id: str) -> None:
        """Revoke an API key: the service accepts it no longer."""
        return self.send(Call("DELETE", f"/v1/keys/{quote(key_id, safe='')}", nothing))

    def audit(self, name: str | None = None, *, of: str = "keys") -> list[AuditEntry]:
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
            page = self.send(call)
            entries += page["audit"]
            after = page["next"]
        return entries
