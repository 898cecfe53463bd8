"""Connections to one service: one for callers that wait, one for callers that await."""

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

import anyio
import httpx
import stamina

from service.client.address import address_of, without_secret
from service.client.transport import PAUSE_SECONDS, Call, Deadline, options, unreachable

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Connection:
    """A connection to the service at `url`. `key` is the API key, if the service needs one.

    An address without a scheme means `http`. For an `https` address, `ca_file` (PEM) replaces
    the trusted certificate authorities of the system. Raises Unusable if the address, the key or
    the file is not valid.

    Every call may raise Unreachable or Refused. If the service asks to wait (429, 503) or the
    connection breaks, a call that is safe to repeat is repeated, until `timeout` seconds after it
    began. `retrain` and `revoke` have longer times of their own. The environment's proxies are not
    used.
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
        self._timeout = timeout
        self._options = options(url, timeout, key, ca_file, transport)
        self._connect()

    def _connect(self) -> None:
        self.http, self._process = httpx.Client(**self._options), os.getpid()

    def send(self, call: Call[T]) -> T:
        """Send a call and return its answer; a failed call is repeated if that is safe."""
        if self._process != os.getpid():
            # After a fork both processes have the sockets: each would read answers of the other.
            self._connect()
        deadline = Deadline(call.seconds or self._timeout)
        try:
            for attempt in stamina.retry_context(
                deadline.pause, call.tries, timeout=None, wait_max=PAUSE_SECONDS
            ):
                with attempt:
                    answer = self.http.request(
                        call.method, call.path, timeout=deadline.left(), **call.sent
                    )
                    return call.read_answer(answer, attempt.num)
        except httpx.RequestError as error:
            raise unreachable(self.url, error) from None
        raise AssertionError("every try returns or raises")

    def close(self) -> None:
        """Close the connection."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncConnection:
    """A connection as `Connection` is, whose calls are awaited."""

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        key: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.url = without_secret(address_of(url))
        self._timeout = timeout
        self.http = httpx.AsyncClient(**options(url, timeout, key, ca_file, transport))

    async def send(self, call: Call[T]) -> T:
        """Send a call and return its answer; a failed call is repeated if that is safe."""
        deadline = Deadline(call.seconds or self._timeout)
        try:
            async for attempt in stamina.retry_context(
                deadline.pause, call.tries, timeout=None, wait_max=PAUSE_SECONDS
            ):
                with attempt:
                    answer = await self._request(call, deadline.left())
                    return call.read_answer(answer, attempt.num)
        except httpx.RequestError as error:
            raise unreachable(self.url, error) from None
        raise AssertionError("every try returns or raises")

    async def _request(self, call: Call[Any], seconds: float) -> httpx.Response:
        """Send a call once. If the caller is cancelled, the connection is given back all the same.

        httpx gives connections back under a shield of anyio. A shield stops the cancellation of a
        scope, but not that of a task, after which httpx would count the connection as in use for
        ever. So a task of its own sends the call, and only its scope is cancelled.
        """
        scope = anyio.CancelScope()

        async def request() -> httpx.Response | None:
            with scope:
                return await self.http.request(call.method, call.path, timeout=seconds, **call.sent)
            return None  # the scope was cancelled

        task = asyncio.create_task(request())
        # An error that comes with a cancellation is ignored; else asyncio would log it.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            scope.cancel()
            await asyncio.wait([task])
            raise
        assert answer is not None
        return answer

    async def close(self) -> None:
        """Close the connection."""
        await self.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


class Sending(Protocol[P, T_co]):
    """A method that sends a call. It returns the answer, or a coroutine that does."""

    @overload
    def __get__(self, client: Connection, owner: type[Any]) -> Callable[P, T_co]: ...
    @overload
    def __get__(
        self, client: AsyncConnection, owner: type[Any]
    ) -> Callable[P, Coroutine[Any, Any, T_co]]: ...


def sends(describe: Callable[Concatenate[Any, P], Call[T]]) -> Sending[P, T]:
    """Turn a method that describes a call into a method that sends the call.

    Both clients have this method: the connection decides whether it is awaited. The `self` of a
    method with `**` must be positional-only.
    """

    @functools.wraps(describe)
    def method(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return client.send(describe(client, *args, **kwargs))

    return cast("Sending[P, T]", method)
