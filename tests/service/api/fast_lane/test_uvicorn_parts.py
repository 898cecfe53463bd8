"""The undocumented parts of uvicorn that the fast lane uses: an upgrade fails here first."""

import ast
import inspect
from collections import deque
from importlib.metadata import version

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

from service.api import server
from service.api.fast_lane import connection, request_reader

# Attributes of one connection that uvicorn makes, and its methods that are called or replaced.
CONNECTION = {
    "connections", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "pipeline",
    "server_state", "transport",
}  # fmt: skip
METHODS = {
    "_start_asgi_task", "connection_lost", "connection_made", "data_received", "eof_received",
    "on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete",
    "on_response_complete", "on_url", "pause_writing", "resume_writing", "shutdown",
}  # fmt: skip
CYCLE = {
    "disconnected", "keep_alive", "message_event", "response_complete", "response_started",
    "transport", "waiting_for_100_continue",
}  # fmt: skip
FLOW = {"pause_reading", "read_paused", "resume_reading", "write_paused"}
STATE = {"connections", "default_headers", "total_requests"}
SERVER = {"capture_signals", "handle_exit", "on_tick", "server_state", "shutdown", "startup"}


async def nobody(scope: object, receive: object, send: object) -> None:
    """Be an application that does not answer."""


def attributes(function: object) -> set[str]:
    """Return the names of the attributes that a constructor sets on `self`."""
    tree = ast.parse(inspect.getsource(function).replace("\n    ", "\n").lstrip())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def used(module: object, owner: str) -> set[str]:
    """Return the attributes of `owner` that a module uses, as `owner.x` or as `self.owner.x`."""
    attributes = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute):
            value = node.value
            name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
            if name == owner:
                attributes.add(node.attr)
    return attributes


def test_the_release_of_uvicorn_is_capped() -> None:
    """Private parts change without notice, so pyproject.toml caps uvicorn's release."""
    assert version("uvicorn").startswith("0.54.")


@pytest.mark.anyio
async def test_uvicorn_has_what_the_fast_lane_relies_on() -> None:
    """Every attribute and method named above exists and has the expected kind."""
    set_by_constructor = attributes(HttpToolsProtocol.__init__)
    assert set_by_constructor >= CONNECTION
    assert all(callable(getattr(HttpToolsProtocol, name)) for name in METHODS)
    assert attributes(RequestResponseCycle.__init__) >= CYCLE
    assert attributes(FlowControl.__init__) | set(dir(FlowControl)) >= FLOW
    assert vars(ServerState()).keys() >= STATE
    assert set(dir(Server)) | {"server_state"} >= SERVER
    config = Config(nobody, lifespan="off")
    protocol = HttpToolsProtocol(config, ServerState(), {})
    assert isinstance(protocol.pipeline, deque)
    assert protocol.cycle is None
    assert "appendleft" in inspect.getsource(HttpToolsProtocol.on_headers_complete)
    assert httptools_impl.HIGH_WATER_LIMIT == 65_536


@pytest.mark.parametrize("module", [connection, request_reader])
def test_the_fast_lane_uses_only_the_named_attributes(module: object) -> None:
    """Every attribute of uvicorn's objects that the modules use is named above."""
    ours = {
        name
        for kind in (request_reader.RequestReader, connection.HttpProtocol)
        for name in (*vars(kind), *attributes(kind.__init__))
    }
    # `url` is there from the first request on.
    assert used(module, "self") - ours <= CONNECTION | METHODS | {"url"}
    assert used(module, "super") <= METHODS | {"__init__"}
    assert used(module, "cycle") <= CYCLE
    assert used(module, "flow") <= FLOW
    assert used(module, "server_state") <= STATE
    assert used(server, "server_state") <= STATE
