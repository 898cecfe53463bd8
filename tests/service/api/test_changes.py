"""The number of open streams is bounded, and all streams of a process share its polls."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest

from service.api.page import changes as changes_module
from service.api.page.changes import MOST, MOST_OF_ONE, Changes
from service.domain.api_key import Grant
from service.domain.scope import Scope
from service.problems import TooManyRequests
from tests.service.stored import Stored, matrix

pytestmark = pytest.mark.anyio


def key(name: str, *detectors: str) -> Grant:
    """Return the grant of a key; without detectors it is for all of them."""
    named = frozenset(detectors) or None
    return Grant.of(name.encode(), name, frozenset({Scope.READ}), detectors=named)


async def test_one_key_cannot_open_all_streams(stored: Stored) -> None:
    """A key that opens too many streams is refused until one of its streams ends."""
    changes = Changes(stored.detectors)
    async with AsyncExitStack() as stack:

        async def opened(grant: Grant) -> None:
            stream = changes.follow(grant, lambda: True)
            await stack.enter_async_context(aclosing(stream))  # type: ignore[type-var]
            assert await anext(stream) == b"retry: 2000\n\n"

        for _ in range(MOST_OF_ONE):
            await opened(key("one"))
        with pytest.raises(TooManyRequests):
            await opened(key("one"))
        for _ in range(MOST - MOST_OF_ONE):
            await opened(key("another"))
        with pytest.raises(TooManyRequests):
            await opened(key("third"))
        assert changes.following == MOST
    assert changes.following == 0


async def test_each_stream_names_the_changes_that_it_may_see(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detectors that are made, changed or deleted are named once, to the keys that cover them."""
    monkeypatch.setattr(changes_module, "SECONDS", 0.02)
    changes = Changes(stored.detectors)
    await stored.make("a")
    async with (
        aclosing(changes.follow(key("all"), lambda: True)) as everything,  # type: ignore[type-var]
        aclosing(changes.follow(key("b alone", "b"), lambda: True)) as one,  # type: ignore[type-var]
        asyncio.timeout(60),
    ):
        for stream in (everything, one):
            await anext(stream)
        await stored.make("b")
        change = b'event: change\ndata: {"detectors":["b"]}\n\n'
        assert [await anext(stream) for stream in (everything, one)] == [change, change]
        await stored.buffer.ingest("a", matrix(3))
        assert await anext(everything) == change.replace(b'"b"', b'"a"')
        await stored.detectors.delete("b")
        assert [await anext(stream) for stream in (everything, one)] == [change, change]
