"""Refuses requests that pages of other web origins cause, as long as there are no API keys.

Requests whose head is malformed are refused with API keys, too.

Any page in a browser can send requests to this machine, so a request from loopback need not come
from the operator. The headers `Sec-Fetch-*` and `Origin` say which page caused it. A page can also
reach this machine under a name of its own (DNS rebinding). The header `Host` then has that name.
"""

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.access import Access
from service.api.middleware import refuse
from service.problems import BadRequest, ForeignOrigin, Problem, Unknown
from service.settings import Settings, is_loopback

_HARMLESS_SITES = {
    b"none",
    b"same-origin",
}  # values of Sec-Fetch-Site: a typed address, or our own page
# A name, or an address that may be in brackets. A port may follow.
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*?)\.?)(?::0*(\d{0,5}))?")
_LAST_PORT = 65_535
_MOST_NAMES = 1024  # host names whose verdict is remembered


class Hosts:
    """The host names under which clients may address a service without API keys."""

    def __init__(self, settings: Settings) -> None:
        self._allowed = {_name(host) for host in (settings.allowed_hosts or "").split(",")} - {""}
        self._any = settings.insecure and not self._allowed
        self._remembered: dict[bytes, bool] = {}

    def knows(self, host: bytes) -> bool:
        """Return whether a `Host` header names this machine or a name that the settings allow."""
        if self._any:
            return True
        known = self._remembered.get(host)
        if known is None:
            name = _name(host.decode("latin-1"))
            known = name in self._allowed or is_loopback(name)
            if len(host) <= 300 and len(self._remembered) < _MOST_NAMES:
                self._remembered[host] = known
        return known


def _name(host: str) -> str:
    """Return the host without its port, in lower case; '' if it is no host with a valid port."""
    match = _HOST.fullmatch(host.strip().lower())
    if match is None or int(match[3] or 0) > _LAST_PORT:
        return ""
    return match[1] or match[2]


class OriginCheck:
    """Refuses malformed heads, and with 403 requests of other origins, before any route runs."""

    def __init__(self, app: ASGIApp, access: Access, hosts: Hosts) -> None:
        self.app = app
        self._access = access
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                await refuse(problem, send)
                return
        await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = _checked_headers(scope["headers"])
        hosts = headers[b"host"]
        malformed = _malformed(headers, host_needed=scope["http_version"] == "1.1")
        if malformed is not None:
            return malformed
        if b"%2f" in scope["raw_path"].lower():
            return Unknown("There is no such path.")  # no name in a path contains a slash
        if self._access.guarded:
            return None
        if hosts and not self._hosts.knows(hosts[0]):
            return ForeignOrigin(
                "The header `Host` does not name this machine. Name the host in "
                "ANAMNESIS_ALLOWED_HOSTS, or guard the service with an API key."
            )
        if not _is_harmless(scope["method"], headers):
            return ForeignOrigin(
                "A page of another web origin caused this request. A service without API keys "
                "refuses such requests. To allow them, create a key with `anamnesis keys create`."
            )
        return None


# Headers that may appear only once: of two, a proxy might use one and this service the other.
_ONCE = (b"host", b"content-type", b"content-encoding", b"idempotency-key", b"if-match",
         b"if-none-match")  # fmt: skip
_CHECKED = (*_ONCE, b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")


def _checked_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    values: dict[bytes, list[bytes]] = {name: [] for name in _CHECKED}
    for name, value in headers:
        if name in values:
            values[name].append(value.strip())
    return values


def _malformed(headers: dict[bytes, list[bytes]], *, host_needed: bool) -> Problem | None:
    if host_needed and not headers[b"host"]:
        return BadRequest("A request must have the header `Host`.")
    twice = next((name for name in _ONCE if len(headers[name]) > 1), None)
    if twice is None:
        return None
    return BadRequest(f"The header `{twice.decode()}` is given more than once.")


def _is_harmless(method: str, headers: dict[bytes, list[bytes]]) -> bool:
    """Return whether the headers show that no page of another web origin caused the request."""
    origins, sites = headers[b"origin"], headers[b"sec-fetch-site"]
    if b"null" in origins:
        return False
    if sites and _HARMLESS_SITES.issuperset(sites):
        return True
    if not sites and not origins:
        return True  # the client is not a browser
    # A person follows a link from another page. That is harmless: GET changes nothing, and the
    # other page cannot read the answer.
    return (
        method == "GET"
        and headers[b"sec-fetch-mode"] == [b"navigate"]
        and headers[b"sec-fetch-dest"] == [b"document"]
    )
