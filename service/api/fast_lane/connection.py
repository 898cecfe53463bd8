"""HTTP/1.1 on one connection: uvicorn's protocol, with a fast lane, deadlines and a soft drain.

Plain score requests go to `fast_lane.lane`, which answers them without a task. All other requests
go to the application, as in uvicorn. Answers leave in the order of their requests. So while the
application works on a request, the requests behind it go to the application too. A request for the
application that follows requests in the lane waits in uvicorn's queue until the lane has answered.
"""

import socket
from asyncio import AbstractEventLoop, Transport
from types import SimpleNamespace
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from service.api.fast_lane.request_reader import Reading, RequestReader
from service.api.fast_lane.response_bytes import ResponseEncoder
from service.problems import BadRequest, Busy, Problem, RequestTimeout
from service.scoring.answers import Reply, as_problem

# Bytes that a peer must send or receive in every period of `body_seconds`: 6.5 KB/s by default.
_PROGRESS = 64 * 1024
_LINGER_SECONDS = 1.0
_TIMEOUT_SHARE = 0.95  # of `body_seconds`: the system's timeout begins only at its first probe
_LAST_CALL_SECONDS = 0.5  # requests sent before a drain began arrive within this time


class HttpProtocol(RequestReader):
    """One connection. `app_state` comes from the application's lifespan: lane and settings.

    `below` is the transport under TLS, None without TLS.
    """

    below: Transport | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._outgoing: list[bytes] = []  # replies of the lane, sent together with the last one
        # Sent after these replies; then the connection ends.
        self._refusal_to_send: bytes | None = None
        self._begun: Any = None  # uvicorn's object of the request that the application works on
        self._last_answer_sent = False  # whether the last answer of this connection has been sent
        self._unsent = 0
        self._unsent_since = 0.0

    # Answers

    def answered(self, reply: Reply) -> None:
        """Send the reply to the oldest unanswered request of the lane, together with the others."""
        self._unanswered -= 1
        if self.transport.is_closing():
            return
        done = not self._unanswered
        close = done and self._ends_after_replies() and self._refusal_to_send is None
        frame = self.lane.encode(reply, self.server_state.default_headers, close=close)
        if not done:
            self._outgoing.append(frame)
            return
        if self._outgoing:
            frame = b"".join([*self._outgoing, frame])
            self._outgoing.clear()
        if self._lane_request is None:
            self._lane_cycle.response_complete = True
        if self._refusal_to_send is not None and not self.pipeline:
            self._send_last(frame + self._refusal_to_send)
            return
        self.transport.write(frame)
        if close:
            self.transport.close()
        self.on_response_complete()

    def _ends_after_replies(self) -> bool:
        # The last request asked to close, or the process drains and no request has begun.
        if self._lane_request is not None or self.pipeline:
            return False
        return self._is_last or (self.draining and self._reading is Reading.NOTHING)

    def on_response_complete(self) -> None:
        """Start the next queued request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self.pipeline.pop() if self.pipeline else None
        if not self.flow.write_paused:
            self.flow.resume_reading()
        if self._reading is Reading.NOTHING:
            self._progress_at = self.loop.time()
        if following is not None:
            self._start_asgi_task(*following)
        elif self._refusal_to_send is not None:
            self._send_last(self._refusal_to_send)

    def refuse(self, problem: Problem) -> None:
        """Answer with `problem` once all earlier requests are answered, then close."""
        if (
            self._last_answer_sent
            or self.transport.is_closing()
            or self._refusal_to_send is not None
        ):
            return
        refusal = ResponseEncoder().encode(
            as_problem(problem), self.server_state.default_headers, close=True
        )
        # Whether the refused request belongs to the application, which reads its body now or later.
        left_to_application = self._reading is Reading.BODY and self._lane_request is None
        self._is_last, self._lane_request = True, None
        self._lane_body.release()
        cycle = self.cycle
        if left_to_application and self.pipeline:
            self.pipeline.popleft()  # the application has not begun it, and never will
            self._refusal_to_send = refusal
        elif left_to_application:
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_last(b"" if cycle.response_started else refusal)
        elif (
            self._unanswered
            or self.pipeline
            or not (cycle is None or cycle.response_complete or cycle is self._lane_cycle)
        ):
            self._refusal_to_send = refusal  # sent after the answers to earlier requests
        else:
            self._send_last(refusal)

    def _close_after_answer(self) -> None:
        """Close after an answer of the application, which may not have read the whole body."""
        if self._reading is not Reading.BODY:
            self.transport.close()
        elif not self._last_answer_sent:
            self.pipeline.clear()  # no request behind this answer gets one
            self._refusal_to_send = None
            self._send_last(b"")

    def _send_last(self, last_answer: bytes) -> None:
        # If the socket closed while the peer still sends, the connection would be reset and the
        # peer might never read the answer. So its bytes are read and ignored for a moment.
        self._last_answer_sent = self._is_last = True
        self.transport.write(last_answer)
        if self.transport.can_write_eof():  # False with TLS
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    # Peers

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to serve the peer, or refuse it if there are too many connections."""
        super().connection_made(transport)
        self._progress_at = self.loop.time()
        if len(self.connections) > self.settings.max_connections:
            most = self.settings.max_connections
            self.refuse(Busy(f"The process has its {most} connections. Try again later."))
            return
        connected = transport.get_extra_info("socket")
        if connected is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Bytes that the peer has not received may lie in the system's buffer, where this
            # process cannot see them. So the system drops the connection.
            stalled = round(_TIMEOUT_SHARE * 1000 * self.settings.body_seconds)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer the requests that the peer sent before it closed its side, then close."""
        if self._reading is not Reading.NOTHING:
            self.refuse(BadRequest("The connection was closed before the request was complete."))
        self._is_last = True
        newest = self.cycle  # also if it waits in the pipeline
        if newest is None or newest is self._lane_cycle:
            waits = self._unanswered > 0
        else:
            newest.keep_alive = False
            # An answer that has begun and is not complete is a stream, which would never end.
            waits = not (newest.response_complete or newest.response_started)
        return (waits or self._last_answer_sent) and self.transport.can_write_eof()

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read from the peer again."""
        super().resume_writing()
        self._unsent = 0
        if not self.pipeline:
            self.flow.resume_reading()

    def sweep(self, now: float) -> None:
        """Close the connection if its peer is too slow.

        Called several times a second with `now`, the event loop's time.
        """
        unsent = self.unsent
        if unsent:
            self._sweep_unsent(unsent, now)
            return
        self._unsent = 0
        cycle = self.cycle
        if self._last_answer_sent or self.transport.is_closing():
            return
        if self._reading is Reading.NOTHING:
            fresh = cycle is None
            limit = self.settings.header_seconds if fresh else self.settings.idle_seconds
            if (fresh or cycle.response_complete) and now - self._progress_at >= limit:
                self.transport.close()
        elif self.flow.read_paused or (cycle is not None and cycle.waiting_for_100_continue):
            # The peer waits for this process, not vice versa.
            self._progress_at, self._received = now, 0
        elif self._reading is Reading.HEAD:
            if now - self._progress_at >= self.settings.header_seconds:
                seconds = self.settings.header_seconds
                self.refuse(RequestTimeout(f"The head of the request took over {seconds} s."))
        elif now - self._progress_at >= self.settings.body_seconds:
            if self._received < _PROGRESS:
                seconds = self.settings.body_seconds
                slow = f"The request's body had under {_PROGRESS} bytes in {seconds} s."
                self.refuse(RequestTimeout(slow))
            self._progress_at, self._received = now, 0

    @property
    def unsent(self) -> int:
        """Bytes of answers that the peer has not received."""
        encrypted = self.below.get_write_buffer_size() if self.below is not None else 0
        return self.transport.get_write_buffer_size() + encrypted

    def abort(self) -> None:
        """Drop the connection, and the answers that its peer has not received."""
        self._give_up()
        self.transport.abort()

    def _sweep_unsent(self, unsent: int, now: float) -> None:
        if not self._unsent or unsent <= self._unsent - _PROGRESS:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since >= self.settings.body_seconds:
            self.abort()

    # The end

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._begun = cycle
        transport = self.transport
        cycle.transport = SimpleNamespace(
            write=transport.write, is_closing=transport.is_closing, close=self._close_after_answer
        )
        super()._start_asgi_task(cycle, app)

    def _give_up(self) -> None:
        """Drop what the application writes from now on: writing to a closed transport would raise.

        uvicorn does this for the newest request alone. That request may wait behind the request
        that the application works on.
        """
        if self._begun is not None:
            self._begun.disconnected = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the request that the application works on."""
        self._give_up()
        if self._begun is not None:
            self._begun.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer the open requests, tell the peer that the connection will close, and close it."""
        self.draining = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        # A request may be on its way. If the connection closed now, it would get no answer.
        self.loop.call_later(_LAST_CALL_SECONDS, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._reading is not Reading.BODY and not self.transport.is_closing():
            self.transport.close()
