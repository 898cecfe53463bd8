"""How many Python calls a plain request takes. A busy machine does not change this number."""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from service.api.access import Access
from service.api.body_budget import BodyBudget
from service.api.fast_lane.connection import HttpProtocol
from service.api.fast_lane.lane import Lane
from service.api.origin import Hosts
from service.scoring.champions import Champions
from service.scoring.core import Scoring
from service.settings import Settings
from service.store.api_keys import KeyTableState
from service.telemetry.metrics import Metrics
from tests.service.trained import champion

pytestmark = pytest.mark.anyio

BODY = b'{"vectors": [[1, 2, 3]]}'
HEAD = (
    b"POST /v1/detectors/pump/score HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\n"
)


class Sink(asyncio.Transport):
    """A transport that counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: bytes) -> None:
        self.answers += data.startswith(b"HTTP/1.1 200")

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Resume reading."""


async def application_that_must_not_run(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an application that must not be called."""
    raise AssertionError


def calls_of(action: Callable[[], Any]) -> int:
    """Return how many calls of Python and C functions `action` makes."""
    count = [0]

    def count_call(frame: object, event: str, arg: object) -> None:
        count[0] += event in {"call", "c_call"}

    gc.collect()
    gc.disable()  # otherwise objects of other tests would be finalized, and counted, in between
    sys.setprofile(count_call)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count[0]


def connections(n: int) -> tuple[Lane, list[HttpProtocol]]:
    """Return a lane with metrics, and open connections."""
    champions, access = Champions(1), Access(may_be_open=True)
    champions.install(champion())
    access.adopt(KeyTableState(0, ""), ())
    scoring = Scoring(champions, (Metrics(CollectorRegistry()),))
    lane = Lane(champions, scoring, access, Hosts(Settings()), BodyBudget(1, 1))
    state = {"lane": lane, "settings": Settings()}
    config = Config(application_that_must_not_run, lifespan="off")
    config.load()
    loop = asyncio.get_running_loop()
    server = ServerState()
    protocols = [HttpProtocol(config, server, state, loop) for _ in range(n)]
    for connection in protocols:
        connection.connection_made(Sink())
    return lane, protocols


@pytest.mark.parametrize(("known", "most"), [(True, 70), (False, 128)])
async def test_a_request_of_a_full_turn_takes_few_calls(known: bool, most: int) -> None:
    """Each of sixty-four requests in one turn takes at most this many calls, with metrics."""
    lane, peers = connections(64)
    # A head that came before is not parsed; one with another name is.
    wires = [
        HEAD + b"X-%d: 1\r\nContent-Length: %d\r\n\r\n%b" % (0 if known else i, len(BODY), BODY)
        for i in range(64)
    ]

    def play_turn() -> None:
        for peer, wire in zip(peers, wires, strict=True):
            peer.data_received(wire)
        lane._answer_waiting()

    if known:
        play_turn()
    taken = calls_of(play_turn) / 64
    assert all(peer.transport.answers == 1 + known for peer in peers)
    assert taken <= most


async def test_only_a_lone_connection_is_answered_at_once() -> None:
    """A connection alone is answered at once; the second of two waits for the turn's end."""
    wire = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    for many, at_once in ((1, 1), (2, 0)):
        lane, peers = connections(many)
        peers[0].data_received(wire)  # its head is parsed
        lane._answer_waiting()
        before = peers[0].transport.answers
        peers[0].data_received(wire)
        assert peers[0].transport.answers - before == at_once


async def test_a_lone_request_takes_few_calls() -> None:
    """A request alone takes few calls from bytes to answer: one vector is not made a matrix."""
    wire = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    lane, (peer,) = connections(1)
    peer.data_received(wire)
    lane._answer_waiting()
    assert calls_of(lambda: peer.data_received(wire)) <= 150
    assert peer.transport.answers == 2
