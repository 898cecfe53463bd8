"""The service's HTTP client: what the command line and the demonstration speak through."""

import io
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import orjson

_RETRY_STATUSES = frozenset({429, 503})
_TRIES = 6
_LONGEST_PAUSE_SECONDS = 10.0
_REVOKE_SECONDS = 120  # a full buffer is gone through twice, 4 MiB at a time
_RETRAIN_WAIT_SECONDS = 300  # the most that one request may ask for


class ServiceError(Exception):
    """Base of what goes wrong between client and service."""


class Unreachable(ServiceError):  # noqa: N818 - it states what happened
    """Nothing answers at the address, or the connection broke."""


class Unusable(ServiceError):  # noqa: N818 - it states what is wrong
    """The address, the key or the authorities that were given cannot be used."""


class Refused(ServiceError):  # noqa: N818 - it states what happened
    """The service answered with a problem (RFC 9457): its `status`, and `detail` as the message.

    `row` and `column`, counted from zero, point into the vectors that were sent, or are None.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"status {status}")
        self.status = status
        self.problem = problem
        self.row: int | None = problem.get("row")
        self.column: int | None = problem.get("column")


class Client:
    """A connection to one service at `url`, with an API `key` where it asks for one.

    An address without a scheme is an `http` one. `ca_file` holds the authorities (PEM) that vouch
    for an `https` one, instead of the system's. Raises Unusable for what cannot be used.

    Every call raises Unreachable or Refused. Calls that may be repeated without harm are, a few
    times, when the service asks for patience (429, 503) or the connection breaks.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        *,
        key: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        address = _address(url)
        self.url = _without_secret(address)
        # The proxies of the environment are not for a service on this machine.
        self.http = httpx.Client(
            base_url=address,
            timeout=timeout,
            transport=transport,
            trust_env=False,
            verify=_trust(ca_file) if address.startswith("https") else False,
            headers={} if key is None else {"authorization": f"Bearer {_secret(key)}"},
        )

    def health(self) -> dict[str, Any]:
        """Return what `/readyz` says."""
        return self._json("GET", "/readyz")

    def detectors(self) -> list[dict[str, Any]]:
        """Return the status of every detector."""
        return _listed(self._json("GET", "/v1/detectors"), "detectors")

    def detector(self, name: str) -> dict[str, Any]:
        """Return one detector's status."""
        return self._json("GET", _path(name))

    def create(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """Create a detector, or give it this config; return the config in full."""
        return self._json("PUT", _path(name), json=config)

    def delete(self, name: str) -> None:
        """Delete a detector with all it holds."""
        self._request("DELETE", _path(name))

    def score(
        self,
        name: str,
        vectors: np.ndarray,
        version: int | None = None,
        *,
        explain: int | None = None,
        record: bool = True,
        **said: Any,
    ) -> dict[str, Any]:
        """Score the rows of an (n, d) matrix, NaN what was not observed; an entry a row.

        `said` may hold `timestamps`, `sources`, `ids` and `context_rows`, as the service has them.
        Not to `record` keeps the request from events, incidents, drift and history.
        """
        params: dict[str, Any] = {"version": version, "explain": explain}
        params = {name: value for name, value in params.items() if value is not None}
        if not record:
            params["record"] = "false"
        return self._json("POST", _path(name, "score"), params=params, **_body(vectors, said))

    def learn(
        self, name: str, vectors: np.ndarray, key: str | None = None, **said: Any
    ) -> dict[str, Any]:
        """Send the rows of an (n, d) matrix as a normal batch, with what is `said` of them.

        With a `key` (an Idempotency-Key) a repeated call stores nothing twice, so it is repeated
        when it fails; without one it is tried once.
        """
        sent = _body(vectors, said)
        if key is not None:
            sent["headers"]["idempotency-key"] = key
        tries = 1 if key is None else _TRIES
        return self._json("POST", _path(name, "normal"), tries=tries, **sent)

    def retrain(self, name: str, wait: float = _RETRAIN_WAIT_SECONDS) -> dict[str, Any] | None:
        """Retrain on what is buffered; return the outcome, or None when `wait` seconds are over."""
        answer = self._request(
            "POST", _path(name, "retrain"), tries=1, json={"wait": wait}, timeout=wait + 30
        )
        if answer.status_code != httpx.codes.OK:
            return None
        outcome: dict[str, Any] = _object(answer)["last_retraining"]
        return outcome

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Return every version's record."""
        return _listed(self._json("GET", _path(name, "versions")), "versions")

    def version(self, name: str, number: int) -> dict[str, Any]:
        """Return one version's record."""
        return self._json("GET", _path(name, "versions", str(number)))

    def artifact(self, name: str, number: int) -> bytes:
        """Return one version's artifact."""
        return self._request("GET", _path(name, "versions", str(number), "artifact")).content

    def promote(self, name: str, number: int, generation: int | None = None) -> dict[str, Any]:
        """Make a version the champion; with `generation`, only if that is still the current one."""
        headers = {} if generation is None else {"if-match": f'"{generation}"'}
        return self._json(
            "PUT", _path(name, "champion"), tries=1, json={"version": number}, headers=headers
        )

    def revoke(self, name: str, **what: Any) -> dict[str, Any]:
        """Unlearn a `batch`, or what came with a `key` so far; return what that came to.

        With `dry_run` nothing changes. `why` goes into the audit trail; `without_champion` lets
        no version serve where none that is kept is clean. Repeating it does what is left.
        """
        return self._json("POST", _path(name, "revoke"), json=what, timeout=_REVOKE_SECONDS)

    def audit(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the whole audit trail that is kept, of a detector or of the keys, oldest first."""
        path = "/v1/audit" if name is None else _path(name, "audit")
        entries: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._json("GET", path, params={"after": after})
            entries += _listed(page, "audit")
            after = page.get("next")
        return entries

    def attention(self) -> list[dict[str, Any]]:
        """Return what needs a person now, worst first."""
        return _listed(self._json("GET", "/v1/attention"), "items")

    def incidents(
        self, name: str, *, state: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the latest incidents, newest first; only those that are `open` or `closed`."""
        asked: dict[str, Any] = {"limit": limit} | ({} if state is None else {"state": state})
        return _listed(self._json("GET", _path(name, "incidents"), params=asked), "incidents")

    def incident(self, name: str, incident: str) -> dict[str, Any]:
        """Return one incident with its worst rows."""
        return self._json("GET", _path(name, "incidents", quote(incident, safe="")))

    def decide(self, name: str, incident: str, decision: str, why: str = "") -> dict[str, Any]:
        """Dismiss, confirm or withdraw; `effect` of the answer says what comes of it."""
        path = _path(name, "incidents", quote(incident, safe=""))
        return self._json("POST", path, json={"decision": decision, "why": why})

    def events(
        self, name: str, *, incident: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the latest anomalies, newest first; only those of one incident."""
        asked: dict[str, Any] = {"limit": limit}
        asked |= {} if incident is None else {"incident": incident}
        return _listed(self._json("GET", _path(name, "events"), params=asked), "events")

    def label(self, name: str, event: str, label: str) -> dict[str, Any]:
        """Say whether a recorded anomaly was `normal` or an `anomaly`."""
        body = {"labels": [{"label": label, "event": event}]}
        headers = {"idempotency-key": f"label-{event}-{label}"}
        return self._json("POST", _path(name, "feedback"), json=body, headers=headers)

    def mute(self, name: str, seconds: float, why: str = "") -> dict[str, Any]:
        """Let a detector page nobody and learn nothing for a while; return until when."""
        return self._json("POST", _path(name, "mute"), json={"seconds": seconds, "why": why})

    def unmute(self, name: str) -> None:
        """End a mute."""
        self._request("DELETE", _path(name, "mute"))

    def close(self) -> None:
        """Close the connection."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _json(self, method: str, path: str, *, tries: int = _TRIES, **sent: Any) -> dict[str, Any]:
        return _object(self._request(method, path, tries=tries, **sent))

    def _request(
        self, method: str, path: str, *, tries: int = _TRIES, **sent: Any
    ) -> httpx.Response:
        for attempt in range(1, tries + 1):
            try:
                answer = self.http.request(method, path, **sent)
            except httpx.ConnectError as error:
                # Nobody there: waiting is for the caller to decide.
                raise Unreachable(f"no service at {self.url}: {error}") from None
            except (httpx.DecodingError, httpx.TooManyRedirects) as error:
                raise Unreachable(f"what answers at {self.url} is no service: {error}") from None
            except httpx.TransportError as error:
                if attempt == tries:
                    raise Unreachable(f"the connection to {self.url} broke: {error!r}") from None
                pause = 0.2 * attempt
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in _RETRY_STATUSES or attempt == tries:
                    raise Refused(answer.status_code, _problem(answer))
                pause = _retry_after(answer)
            time.sleep(pause)
        raise AssertionError("every try returns or raises")


def _path(name: str, *rest: str) -> str:
    return "/".join(("/v1/detectors", quote(name, safe=""), *rest))


def _body(vectors: np.ndarray, said: dict[str, Any]) -> dict[str, Any]:
    """Return the body for rows and what is said of them: npy where that is nothing."""
    if not said:
        return _npy(vectors)
    rows = {"vectors": np.ascontiguousarray(vectors, dtype=np.float32), **said}
    body = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)  # NaN is null
    return {"content": body, "headers": {"content-type": "application/json"}}


def _npy(vectors: np.ndarray) -> dict[str, Any]:
    body = io.BytesIO()
    np.save(body, np.ascontiguousarray(vectors, dtype="<f4"), allow_pickle=False)
    return {"content": body.getvalue(), "headers": {"content-type": "application/x-npy"}}


def _retry_after(answer: httpx.Response) -> float:
    """Return how long the service asks to wait, in seconds, within reason."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked) if asked.isdecimal() else 1.0, _LONGEST_PAUSE_SECONDS)


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"title": answer.reason_phrase}


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(answer.status_code, {"detail": "the answer is not one of this service's"})
    return value


def _listed(answer: dict[str, Any], field: str) -> list[dict[str, Any]]:
    listed = answer.get(field)
    if not isinstance(listed, list):
        raise Refused(200, {"detail": "the answer is not one of this service's"})
    return listed


def _address(url: str) -> str:
    """Return the address with its scheme; Unusable where there can be no service at it."""
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(address)
        (parts.hostname or "").encode("idna")  # a label that is too long, for one
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx.URL(address)
    except (ValueError, httpx.InvalidURL):
        usable = None
    if not usable:
        raise Unusable("the URL is no address of a service: wanted is http://host:port")
    return address


def _without_secret(address: str) -> str:
    """Return the address without a user and a password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _secret(key: str) -> str:
    """Return the key; Unusable where no header can carry it. It is never repeated."""
    key = key.strip()
    if not key or not all("!" <= char <= "~" for char in key):
        raise Unusable("the API key is not one: it holds spaces, line ends or other characters")
    return key


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return what trusts the authorities of `ca_file`, or those of the system.

    The system's are OpenSSL's: SSL_CERT_FILE and SSL_CERT_DIR name others.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise Unusable(f"{ca_file} holds no certificate authorities (PEM)") from None
    except OSError as error:
        raise Unusable(f"{ca_file} cannot be read: {error.strerror}") from None
