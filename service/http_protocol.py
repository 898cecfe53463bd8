"""HTTP/1.1 on one connection: uvicorn's protocol, with a fast lane, deadlines and a soft drain.

Plain score requests go to `service.lane` and are answered without a task; all others go on to the
application as uvicorn would have it. Answers leave in the order of their requests, whichever way
those took: a request behind one that the application still works on takes that way too, and one
behind the lane's waits, in uvicorn's own queue, until the lane has answered.
"""

import socket
from asyncio import AbstractEventLoop, Transport
from enum import IntEnum
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.answers import Reply, as_problem
from service.lane import Frames, Lane, LaneCycle
from service.problems import BadRequest, HeadTooLarge, Problem, RequestTimeout
from service.scoring import ScoreRequest
from service.settings import Settings

_HEAD_BYTES = 64 * 1024  # of request line and headers
# What a peer must send, or take, in every period of `body_seconds`: 6.5 KB/s by default.
_PROGRESS = 64 * 1024
_PARTS = 256  # of a body, before they are put together: each costs as much as fifty bytes
_LINGER_SECONDS = 1.0
_SOONER = 0.95
_LAST_CALL_SECONDS = 0.5  # a request already on its way when a drain begins arrives within that

_BODY_FOLLOWS = (b"content-length", b"transfer-encoding")


class Reading(IntEnum):
    """What the next byte from the peer belongs to."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class HttpProtocol(HttpToolsProtocol):
    """One connection. `app_state` is what the application's lifespan yields: lane and settings."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.lane: Lane = app_state["lane"]
        self.settings: Settings = app_state["settings"]
        self.draining = False
        self._lane_cycle: Any = LaneCycle()
        self._asked: ScoreRequest | None = None  # being read
        self._authorization: bytes | None = None
        self._body: list[bytes] = []  # as it came, in parts
        self._handed: ScoreRequest | None = None  # the last that was parsed from these bytes
        self._unanswered = 0  # requests in the lane
        self._outgoing: list[bytes] = []  # replies that leave together with the last of them
        self._farewell: bytes | None = None  # what follows these, before the end
        self._last = False  # no request is read after those
        self._parted = False  # the last word was said
        self._reading = Reading.NOTHING
        self._since = self.loop.time()  # what is being read began then, or made progress
        self._head_bytes = 0
        self._received = 0  # bytes of the body since then
        self._unsent = 0
        self._unsent_since = 0.0

    # Requests

    def data_received(self, data: bytes) -> None:
        """Take what came: a request whose head is known, or bytes to parse."""
        if self._last and self._asked is None:
            return
        between = self._reading is Reading.NOTHING
        recalled = self.lane.recalls(data) if between and self._lane_is_next() else None
        if recalled is not None:
            self._hand_over(recalled, alone=len(self.connections) == 1)
            return
        self._parse(data)
        if self._reading is Reading.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.refuse(HeadTooLarge(f"A request's head has at most {_HEAD_BYTES} bytes."))
        elif between and self._handed is not None and not self._last:
            self.lane.remember(data, self._handed, self._authorization)
        self._handed = None

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse(BadRequest("This is not HTTP/1.1."))
        except httptools.HttpParserUpgrade as upgrade:
            # Answered as if it had not been asked for. What follows is HTTP as before; only a body
            # is lost, because the parser takes it for the other protocol's first words.
            if any(name in _BODY_FOLLOWS for name, _ in self.headers):
                self.cycle.keep_alive = False
                self._last = True
            elif after := data[upgrade.args[0] :]:
                self.data_received(after)

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs is made once it is known to go there."""
        self.url = b""
        self.headers = []
        self._authorization = None
        self._reading = Reading.HEAD
        self._since = self.loop.time()
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        name = name.lower()
        if name == b"authorization" and self._authorization is None:
            self._authorization = value  # apart: it does not say whether a request is plain
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Choose the way."""
        self._reading = Reading.BODY
        self._received = 0
        if not self._last and self.parser.get_method() == b"POST" and self._lane_is_next():
            asked = self.lane.takes(self.url, self.headers)
            if (
                asked is not None
                and self.parser.get_http_version() == "1.1"
                # The application says what is wrong with a key, if something is.
                and self.lane.admits(self._authorization, asked.name)
            ):
                self._asked = asked
                self._body = []
                self._last = not self.parser.should_keep_alive()
                self._lane_cycle.response_complete = False
                self.cycle = self._lane_cycle
                return
        self._to_application()

    def _lane_is_next(self) -> bool:
        cycle = self.cycle
        return not self.pipeline and (
            cycle is None or cycle.response_complete or cycle is self._lane_cycle
        )

    def _to_application(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        if self._authorization is not None:
            super().on_header(b"authorization", self._authorization)
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._received += len(body)
        if self._asked is None:
            super().on_body(body)
            return
        self._body.append(body)
        if len(self._body) == _PARTS:
            self._body = [b"".join(self._body)]

    def on_message_complete(self) -> None:
        """Hand a request of the lane over."""
        self._reading = Reading.NOTHING
        if self._asked is None:
            super().on_message_complete()
            return
        name, _, content_type, accept, *_ = self._asked
        self._asked = None
        self._handed = ScoreRequest(name, b"".join(self._body), content_type, accept)
        self._hand_over(self._handed)

    def _hand_over(self, request: ScoreRequest, *, alone: bool = False) -> None:
        self._lane_cycle.response_complete = False
        self.cycle = self._lane_cycle
        self._unanswered += 1
        self.lane.ask(self, request, alone=alone)

    # Answers

    def answered(self, reply: Reply) -> None:
        """Send the reply to the oldest unanswered request of the lane, together with the others."""
        self._unanswered -= 1
        if self.transport.is_closing():
            return
        done = not self._unanswered
        close = done and self._ends()
        frame = self.lane.frame(
            reply, self.server_state.default_headers, close=close and self._farewell is None
        )
        if not done:
            self._outgoing.append(frame)
            return
        if self._outgoing or self._farewell is not None:
            frame = b"".join([*self._outgoing, frame, self._farewell or b""])
            self._outgoing.clear()
        if self._asked is None:
            self._lane_cycle.response_complete = True
        if self._farewell is not None:
            self._part(frame)
            return
        self.transport.write(frame)
        if close:
            self.transport.close()
        self.on_response_complete()

    def _ends(self) -> bool:
        # The last request said so, or a drain did and nothing more has begun to come.
        return self._asked is None and (
            self._last or (self.draining and self._reading is Reading.NOTHING)
        )

    def on_response_complete(self) -> None:
        """Go on with what waits, or wait for the next request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self.flow.write_paused:
            self.flow.resume_reading()
        if self._reading is Reading.NOTHING:
            self._since = self.loop.time()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def refuse(self, problem: Problem) -> None:
        """Answer `problem` after all that is still to be answered, and close."""
        if self._parted or self.transport.is_closing() or self._farewell is not None:
            return
        farewell = Frames().frame(
            as_problem(problem), self.server_state.default_headers, close=True
        )
        self._last, self._asked = True, None
        cycle = self.cycle
        if self.pipeline:
            self.transport.abort()  # several requests unanswered, and the last of them broken
        elif self._unanswered:
            self._farewell = farewell
        elif cycle is None or cycle.response_complete or cycle is self._lane_cycle:
            self._part(farewell)
        elif self._reading is not Reading.BODY:
            cycle.keep_alive = False  # the application is not done with the request before
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._part(b"" if cycle.response_started else farewell)

    def _part(self, farewell: bytes) -> None:
        # Closing while the peer still sends would reset the connection, and the peer might never
        # read why: so it is heard out for a moment, and ignored.
        self._parted = True
        self.transport.write(farewell)
        if self.transport.can_write_eof():  # not within TLS
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    # Peers

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._since = self.loop.time()
        connected = transport.get_extra_info("socket")
        if connected is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # What a peer does not take and the system holds for it is not seen here. The system
            # counts from its first probe, and looks again only after a while.
            stalled = round(_SOONER * 1000 * self.settings.body_seconds)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer what a peer asked before it ended its own side."""
        self._last = True
        return self._unanswered > 0 and self.transport.can_write_eof()

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        self._unsent = 0
        if not self.pipeline:
            self.flow.resume_reading()

    def sweep(self, now: float) -> None:
        """Close what is too slow; called several times a second with the loop's time."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            self._sweep_unsent(unsent, now)
            return
        self._unsent = 0
        cycle = self.cycle
        if self._parted or self.transport.is_closing():
            return
        if self._reading is Reading.NOTHING:
            fresh = cycle is None
            limit = self.settings.header_seconds if fresh else self.settings.idle_seconds
            if (fresh or cycle.response_complete) and now - self._since >= limit:
                self.transport.close()
        elif self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue):
            self._since, self._received = now, 0  # it is us who it waits for
        elif self._reading is Reading.HEAD:
            if now - self._since >= self.settings.header_seconds:
                self.refuse(RequestTimeout("The request's head came too slowly."))
        elif now - self._since >= self.settings.body_seconds:
            if self._received < _PROGRESS:
                self.refuse(RequestTimeout("The request's body came too slowly."))
            self._since, self._received = now, 0

    def _sweep_unsent(self, unsent: int, now: float) -> None:
        if not self._unsent or unsent <= self._unsent - _PROGRESS:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since >= self.settings.body_seconds:
            self.transport.abort()

    # The end

    def shutdown(self) -> None:
        """Answer what was asked, and let the peer know that there will be no more."""
        self.draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        # A request may be on its way: closing at once would reset it.
        self.loop.call_later(_LAST_CALL_SECONDS, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._reading is not Reading.BODY and not self.transport.is_closing():
            self.transport.close()
