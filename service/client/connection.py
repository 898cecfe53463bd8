"""A connection to one service, waited for in the caller's thread."""

from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import stamina

from service.client.address import address_of, without_secret
from service.client.transport import Call, checked, options, pause, unreachable

T = TypeVar("T")


class Connection:
    """A connection to the service at `url`. `key` is the API key, if the service needs one.

    An address without a scheme means `http`. For an `https` address, `ca_file` (PEM) replaces
    the trusted certificate authorities of the system. Raises Unusable if the address, the key or
    the file is not valid.

    Every call may raise Unreachable or Refused. If the service asks to wait (429, 503) or the
    connection breaks, a call that is safe to repeat is repeated a few times.
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
        self.url = without_secret(address_of(url))
        self.http = httpx.Client(**options(url, timeout, key, ca_file, transport))

    def send(self, call: Call[T]) -> T:
        """Send a call and return its answer; a failed call is repeated if that is safe."""
        try:
            for attempt in stamina.retry_context(on=pause, attempts=call.tries, timeout=None):
                with attempt:
                    answer = self.http.request(call.method, call.path, **call.sent)
                    return call.read(checked(answer))
        except httpx.RequestError as error:
            raise unreachable(self.url, error) from None
        raise AssertionError("every try returns or raises")

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
