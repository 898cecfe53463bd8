"""Describes one request, decides whether to repeat it, and reads its answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import httpx

from service.client.address import address_of, secret, trust
from service.client.errors import Refused, Unreachable, Unusable

T = TypeVar("T")

TRIES = 6
_RETRY_STATUSES = frozenset({429, 503})
_LONGEST_PAUSE_SECONDS = 10.0
PAUSE_SECONDS = 1.0  # the longest pause before a try, unless the service names one
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 1e6  # a socket takes no timeout of 0, nor an infinite one
_FOREIGN = "the server at this address is not this service"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, the reader of its answer, and whether it is safe to repeat."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    sent: dict[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    seconds: float | None = None  # replaces the timeout of the client

    @property
    def tries(self) -> int:
        """The most times that the request is sent."""
        return TRIES if self.repeatable else 1

    def read_answer(self, answer: httpx.Response, attempt: int) -> T:
        """Return what the answer to the given attempt (from 1) holds. Raises Refused.

        If a repeated DELETE finds nothing, an earlier attempt has deleted it.
        """
        if attempt > 1 and self.method == "DELETE" and answer.status_code == httpx.codes.NOT_FOUND:
            return self.read(answer)
        return self.read(checked(answer))


def options(
    url: str, timeout: float, key: str | None, ca_file: Path | None, transport: Any
) -> dict[str, Any]:
    """Return the arguments for the httpx client. Raises Unusable if one is not valid."""
    address = address_of(url)
    return {
        "base_url": address,
        "timeout": timeout,
        "transport": transport,
        # A proxy from the environment must not get requests to a service on this machine.
        "trust_env": False,
        "verify": trust(ca_file) if address.startswith("https") else False,
        "headers": {} if key is None else {"authorization": f"Bearer {secret(key)}"},
    }


def checked(answer: httpx.Response) -> httpx.Response:
    """Return `answer` if its status is a success. Raises Refused if not."""
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": answer.reason_phrase}
    refused = Refused(answer.status_code, problem)
    if answer.status_code in _RETRY_STATUSES:
        refused.pause = _retry_after(answer)
    raise refused


class Deadline:
    """The end of a call with all its tries, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds for the next try."""
        return min(max(self._end - time.monotonic(), _LEAST_SECONDS), _MOST_SECONDS)

    def pause(self, error: Exception) -> float | bool:
        """Return the seconds to wait before a call that failed with `error` is repeated.

        True means the default wait, and False means that the call is not repeated. If no service
        listens at the address, the call is not repeated: the caller decides whether to wait.
        """
        if isinstance(error, Refused):
            wait: float | bool = False if error.pause is None else error.pause
        else:
            never = (httpx.ConnectError, httpx.LocalProtocolError)
            wait = isinstance(error, httpx.TransportError) and not isinstance(error, never)
        seconds = PAUSE_SECONDS if wait is True else wait
        return wait if time.monotonic() + seconds < self._end else False


def unreachable(url: str, error: httpx.RequestError) -> Unreachable | Unusable:
    """Return the error for a request that could not be sent, or that failed in every try."""
    if isinstance(error, httpx.LocalProtocolError):
        return Unusable(f"the request cannot be sent: {error}")
    if not isinstance(error, httpx.TransportError):
        return Unreachable(f"the server at {url} is not this service: {error}")
    if "certificate verify failed" in str(error):
        return Unreachable(
            f"the certificate of {url} is not trusted (`ca_file` or ANAMNESIS_CA_FILE names its "
            f"authorities): {error}"
        )
    if isinstance(error, httpx.ConnectError):
        return Unreachable(f"no service at {url}: {error}")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{url} took too long to answer: the service or its machine is busy")
    return Unreachable(f"the connection to {url} broke: {error!r}")


def as_json(kind: type[T]) -> Callable[[httpx.Response], T]:
    """Return a reader of answers that are a JSON object of type `kind`."""
    del kind  # only the type checker needs it: a TypedDict is a dict at run time
    return lambda answer: cast("T", _object(answer))


def listed(name: str, kind: type[T]) -> Callable[[httpx.Response], list[T]]:
    """Return a reader of answers whose field `name` is a list of `kind`."""
    del kind

    def read(answer: httpx.Response) -> list[T]:
        entries = _object(answer).get(name)
        if not isinstance(entries, list):
            raise Refused(answer.status_code, {"detail": _FOREIGN})
        return entries

    return read


def as_bytes(answer: httpx.Response) -> bytes:
    """Return the body of an answer."""
    return answer.content


def nothing(answer: httpx.Response) -> None:
    """Read nothing."""
    del answer


def _object(answer: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises Refused if the answer is not one."""
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(answer.status_code, {"detail": _FOREIGN})
    return value


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds that the service asks to wait, up to a limit."""
    seconds = answer.headers.get("retry-after", "")
    return min(float(seconds) if seconds.isdecimal() else 1.0, _LONGEST_PAUSE_SECONDS)
