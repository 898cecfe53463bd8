"""HTTP/1.1 on one connection: uvicorn's protocol, with a fast lane, deadlines and a soft drain.

Plain score requests go to `fast_lane.lane` and are answered without a task. All others go to the
application, as in uvicorn. Answers leave in the order of their requests: while the application
works on a request, the requests behind it go to the application too; a request for the application
that comes behind requests in the lane waits in uvicorn's queue until the lane has answered.
"""

import socket
from asyncio import AbstractEventLoop, Transport
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.api.fast_lane.request_reader import Reading, RequestReader
from service.api.fast_lane.response_bytes import Frames
from service.problems import Busy, Problem, RequestTimeout
from service.scoring.answers import Reply, as_problem

# What a peer must send, or take, in every period of `body_seconds`: 6.5 KB/s by default.
_PROGRESS = 64 * 1024
_LINGER_SECONDS = 1.0
_SOONER = 0.95
_LAST_CALL_SECONDS = 0.5  # a request already on its way when a drain begins arrives within that


class HttpProtocol(RequestReader):
    """One connection. `app_state` is what the application's lifespan yields: lane and settings."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._outgoing: list[bytes] = []  # replies that leave together with the last of them
        self._farewell: bytes | None = None  # what follows these, before the end
        self._parted = False  # the last answer of this connection was sent
        self._unsent = 0
        self._unsent_since = 0.0

    # Answers

    def answered(self, reply: Reply) -> None:
        """Send the reply to the oldest unanswered request of the lane, together with the others."""
        self._unanswered -= 1
        if self.transport.is_closing():
            return
        done = not self._unanswered
        close = done and self._ends() and self._farewell is None
        frame = self.lane.frame(reply, self.server_state.default_headers, close=close)
        if not done:
            self._outgoing.append(frame)
            return
        if self._outgoing:
            frame = b"".join([*self._outgoing, frame])
            self._outgoing.clear()
        if self._asked is None:
            self._lane_cycle.response_complete = True
        if self._farewell is not None and not self.pipeline:
            self._part(frame + self._farewell)
            return
        self.transport.write(frame)
        if close:
            self.transport.close()
        self.on_response_complete()

    def _ends(self) -> bool:
        # Close: the last request asked for it, or the process drains and no request has begun.
        return self._asked is None and (
            self._last or (self.draining and self._reading is Reading.NOTHING)
        )

    def on_response_complete(self) -> None:
        """Start the next queued request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if not self.flow.write_paused:
            self.flow.resume_reading()
        if self._reading is Reading.NOTHING:
            self._since = self.loop.time()
        if following is not None:
            self._start_asgi_task(*following)
        elif self._farewell is not None:
            self._part(self._farewell)

    def refuse(self, problem: Problem) -> None:
        """Answer `problem` after all earlier requests are answered, and close."""
        if self._parted or self.transport.is_closing() or self._farewell is not None:
            return
        farewell = Frames().frame(
            as_problem(problem), self.server_state.default_headers, close=True
        )
        # The application reads the body of the request that is being refused, or waits to.
        taken = self._reading is Reading.BODY and self._asked is None
        self._last, self._asked = True, None
        self._let_go()
        cycle = self.cycle
        if taken and self.pipeline:
            self.pipeline.popleft()  # not begun: the farewell answers it
            self._farewell = farewell
        elif taken:
            cycle.disconnected = True
            cycle.message_event.set()
            self._part(b"" if cycle.response_started else farewell)
        elif (
            self._unanswered
            or self.pipeline
            or not (cycle is None or cycle.response_complete or cycle is self._lane_cycle)
        ):
            self._farewell = farewell  # after the answers to the requests before
        else:
            self._part(farewell)

    def _part(self, farewell: bytes) -> None:
        # Closing while the peer still sends would reset the connection, and the peer might never
        # read the answer. So its bytes are read and ignored for a moment.
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
        if len(self.connections) > self.settings.max_connections:
            self.refuse(Busy("The process serves as many connections as it may."))
            return
        connected = transport.get_extra_info("socket")
        if connected is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Bytes that the peer has not taken may lie in the system's buffer, unseen here. The
            # system's time-out counts from its first probe.
            stalled = round(_SOONER * 1000 * self.settings.body_seconds)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer the requests that a peer sent before it closed its side."""
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
        unsent = self.unsent
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
            self._since, self._received = now, 0  # the peer waits for this process
        elif self._reading is Reading.HEAD:
            if now - self._since >= self.settings.header_seconds:
                self.refuse(RequestTimeout("The request's head came too slowly."))
        elif now - self._since >= self.settings.body_seconds:
            if self._received < _PROGRESS:
                self.refuse(RequestTimeout("The request's body came too slowly."))
            self._since, self._received = now, 0

    @property
    def unsent(self) -> int:
        """Bytes of answers that the peer has not taken."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection, with what its peer has not taken."""
        self.transport.abort()

    def _sweep_unsent(self, unsent: int, now: float) -> None:
        if not self._unsent or unsent <= self._unsent - _PROGRESS:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since >= self.settings.body_seconds:
            self.transport.abort()

    # The end

    def shutdown(self) -> None:
        """Answer the open requests, and tell the peer that the connection then closes."""
        self.draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        # A request may be on its way: closing at once would reset it.
        self.loop.call_later(_LAST_CALL_SECONDS, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._reading is not Reading.BODY and not self.transport.is_closing():
            self.transport.close()
