"""Calls about the service itself: health, metrics, API keys and the audit trail."""

from collections.abc import Sequence
from typing import Any

from service.client.answers import ApiKey, AuditPage, Health, ServiceAnswer, Work
from service.client.connection import sends
from service.client.encoding import page, path, present, segment
from service.client.transport import Call, as_json, listed, nothing


class Administration:
    """Shows the state of a service, and manages its API keys."""

    @sends
    def live(self) -> Call[Health]:
        """Return the answer of `/healthz`: whether the process is alive."""
        return Call("GET", "/healthz", as_json(Health))

    @sends
    def health(self) -> Call[Health]:
        """Return the answer of `/readyz`: whether the service is ready."""
        return Call("GET", "/readyz", as_json(Health))

    @sends
    def service(self) -> Call[ServiceAnswer]:
        """Return the state of the store, the workers and the API processes."""
        return Call("GET", "/v1/service", as_json(ServiceAnswer))

    @sends
    def work(self) -> Call[Work]:
        """Return how many detectors are due or in retraining, and the longest wait in seconds."""
        return Call("GET", "/v1/work", as_json(Work))

    @sends
    def metrics(self) -> Call[str]:
        """Return the metrics in the text format of Prometheus."""
        return Call("GET", "/metrics", lambda answer: answer.text)

    @sends
    def keys(self, *, limit: int | None = None, after: str | None = None) -> Call[list[ApiKey]]:
        """Return every stored API key with what it allows; with `limit`, a page, newest first.

        `after` is the id of the last key of the page before.
        """
        return Call("GET", "/v1/keys", listed("keys", ApiKey), page(limit, after))

    @sends
    def create_key(
        self,
        /,
        name: str,
        scopes: Sequence[str],
        detectors: Sequence[str] | None = None,
        **bounds: Any,
    ) -> Call[ApiKey]:
        """Create an API key. Only this answer shows its secret, as `key`.

        `bounds` may hold `requests_per_second` and `max_body_bytes`.
        """
        fields = {"name": name, "scopes": list(scopes), **bounds}
        sent = {"json": fields | present(detectors=detectors)}
        return Call("POST", "/v1/keys", as_json(ApiKey), sent, repeatable=False)

    @sends
    def revoke_key(self, key_id: str) -> Call[None]:
        """Revoke an API key: the service accepts it no longer."""
        return Call("DELETE", f"/v1/keys/{segment(key_id)}", nothing)

    @sends
    def audit_page(
        self, name: str | None = None, after: int = 0, *, of: str = "keys"
    ) -> Call[AuditPage]:
        """Return the entries of an audit trail with a number above `after`, as `audit` does.

        One answer has at most 1,000 entries. `next` is the `after` of the next one.
        """
        if name is not None:
            return Call(
                "GET", path(name, "audit"), as_json(AuditPage), {"params": {"after": after}}
            )
        sent = {"params": {"after": after, "of": of}}
        return Call("GET", "/v1/audit", as_json(AuditPage), sent)
