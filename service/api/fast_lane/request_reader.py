"""Reads the requests of one connection, within bounds. Gives them to the lane or the application.

An offer of another protocol (`Upgrade: h2c`, `websocket`) is declined: the request is read as if it
had no such offer (RFC 9110, section 7.8).
"""

from asyncio import AbstractEventLoop, Transport
from enum import IntEnum
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service import log
from service.api.body_budget import FULL
from service.api.fast_lane.byte_bounds import HEAD_BYTES, HEADERS, ByteBounds
from service.api.fast_lane.flow import Flow
from service.api.fast_lane.lane import Lane, LaneCycle
from service.api.fast_lane.lane_body import LaneBody
from service.api.fast_lane.rewritten_heads import has_path, with_host_of, without_upgrade
from service.problems import BadRequest, Busy, Problem, TooManyRequests, unexpected
from service.scoring.answers import Reply
from service.scoring.request import ScoreRequest
from service.settings import Settings

_log = log.get(__name__)

_IN_LANE = 256  # requests of one connection in the lane before reading pauses
_PIPELINED = 1000  # most requests of one connection that wait for the application


class Reading(IntEnum):
    """The part of a request to which the peer's next byte belongs."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class RequestReader(HttpToolsProtocol):
    """Reads requests. `service.api.fast_lane.connection` answers them."""

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
        self._lane_request: ScoreRequest | None = None  # the lane's request that is being read
        self._lane_body = LaneBody(self.lane.budget)  # the body of this request
        self._authorization: bytes | None = None
        self._complete_request: ScoreRequest | None = None  # parsed from the latest bytes
        self._unanswered = 0  # requests in the lane
        self._is_last = False  # whether no request may follow those in the lane
        self._reading = Reading.NOTHING
        self._progress_at = self.loop.time()  # when the present part began, or last made progress
        self._bounds = ByteBounds()
        self._upgrade_offered = False  # whether the request offers another protocol
        self._counts_headers = False  # whether the head may exceed its bounds
        self._refusal: Problem | None = None  # why the parser was stopped
        self._received = 0  # bytes of the body received since `_progress_at`

    def refuse(self, problem: Problem) -> None:
        """Answer with `problem` once all earlier requests are answered, then close."""
        raise NotImplementedError

    def answered(self, reply: Reply) -> None:
        """Send the reply to the oldest unanswered request of the lane."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Take received bytes. They are parsed, unless they are a request with a cached head."""
        if self._is_last and self._lane_request is None:
            return
        between = self._reading is Reading.NOTHING
        cached = self.lane.cached_request(data) if between and self._lane_is_next() else None
        if cached is not None:
            self._hand_over(cached, alone=len(self.connections) == 1)
            return
        self._counts_headers = self._reading is Reading.HEAD or len(data) > HEAD_BYTES
        self._parse(data)
        problem = None
        if self._reading is Reading.HEAD:
            problem = self._bounds.packet_of_head(len(data), len(self.headers))
        elif self._reading is Reading.BODY:
            if self._lane_request is None:
                problem = self._bounds.packet_of_body(len(data))
        elif between and self._complete_request is None:
            problem = self._bounds.packet_between(len(data))
        elif between and self._complete_request is not None and not self._is_last:
            self.lane.remember(data, self._complete_request, self._authorization)
        self._complete_request = None
        if problem is not None:
            self.refuse(problem)

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                else:
                    return
                # Decline the offer: read the head again without it.
                head = self._head_without_offer()
                # With `Connection: close` too, the old parser would ignore all further bytes.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
        except httptools.HttpParserError as error:
            problem = self._refusal or BadRequest("The request is not valid HTTP/1.1.")
            if self._refusal is None and (cause := error.__context__) is not None:
                _log.error("reading a request failed", exc_info=cause)
                problem = unexpected(cause)
            self.refuse(problem)

    def _head_without_offer(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._stop(BadRequest("The method CONNECT is for a proxy, and this service is none."))
        if self._authorization is not None:
            self.headers.append((b"authorization", self._authorization))
        version = self.parser.get_http_version().encode()
        return without_upgrade(b"%b %b HTTP/%b" % (method, self.url, version), self.headers)

    def _stop(self, problem: Problem | None) -> None:
        """Stop the parser if there is a problem. The bytes that follow are not read."""
        if problem is not None:
            self._refusal = problem
            raise httptools.HttpParserError

    def on_message_begin(self) -> None:
        """Begin a request. uvicorn's objects are made only for a request to the application."""
        self.url = b""
        self.headers = []
        self._authorization = None
        self._reading = Reading.HEAD
        self._progress_at = self.loop.time()
        self._bounds.begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Drop a trailer, since the application does not use trailers."""
        if self._reading is Reading.BODY:
            self._stop(self._bounds.trailer(len(name) + len(value)))
            return
        if self._counts_headers:
            self._stop(self._bounds.header(len(name) + len(value), len(self.headers)))
        name = name.lower()
        if name == b"authorization" and self._authorization is None:
            # Kept separately: this header does not decide whether a request is plain.
            self._authorization = value
        else:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Choose between the lane and the application."""
        self._upgrade_offered = self.parser.should_upgrade()
        if self._upgrade_offered:
            return  # `_parse` reads this head again without the offer
        if self._counts_headers or len(self.headers) > HEADERS:
            self._stop(self._bounds.head(self._authorization, self.url, self.headers))
        self._reading = Reading.BODY
        self._received = 0
        if not self._is_last and self.parser.get_method() == b"POST" and self._lane_is_next():
            lane_request = self.lane.plain_request(self.url, self.headers)
            if (
                lane_request is not None
                and self.parser.get_http_version() == "1.1"
                # If the key is not valid, the application answers with the reason.
                and (grant := self.lane.admit(self._authorization, lane_request.name)) is not None
            ):
                self._lane_request = lane_request
                self._lane_body.begin(grant.id)
                self._is_last = not self.parser.should_keep_alive()
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
        if len(self.pipeline) >= _PIPELINED:
            self._stop_in_head(
                TooManyRequests(
                    f"At most {_PIPELINED} requests may wait on a connection. Read answers first."
                )
            )
        self._bounds.begin()
        url, headers = self.url, self.headers
        if not url.startswith(b"/"):
            if not has_path(url):
                self._stop_in_head(BadRequest("The request's target must be a URL with a path."))
            headers = with_host_of(url, headers)
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        if self._authorization is not None:
            super().on_header(b"authorization", self._authorization)
        if self.parser.get_http_version() == "1.0":
            # HTTP/1.0 has no status 100, so the client would take it for the answer.
            self.expect_100_continue = False
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def _stop_in_head(self, problem: Problem) -> None:
        """Stop the parser because of `problem`, before the application gets the request."""
        self._reading = Reading.HEAD
        self._stop(problem)

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body."""
        self._received += len(body)
        if self._lane_request is None:
            self._stop(self._bounds.content(len(body)))
            super().on_body(body)
            return
        if not self._lane_body.add(body):
            self._stop(Busy(FULL))

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to read from the peer."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the bytes of a body that the peer did not finish."""
        self._lane_body.release()
        super().connection_lost(exc)

    def on_message_complete(self) -> None:
        """Give the complete request to the lane, if it is one for the lane."""
        if self._upgrade_offered:
            return
        self._reading = Reading.NOTHING
        if self._lane_request is None:
            super().on_message_complete()
            return
        # The request is scored in this turn of the loop, or in the next.
        self._complete_request = self._lane_request._replace(body=self._lane_body.take())
        self._lane_request = None
        self._hand_over(self._complete_request)

    def _hand_over(self, request: ScoreRequest, *, alone: bool = False) -> None:
        self._lane_cycle.response_complete = False
        self.cycle = self._lane_cycle
        self._unanswered += 1
        if self._unanswered > _IN_LANE:
            self.flow.pause_reading()  # reading resumes after the lane has answered all of them
        self.lane.ask(self, request, alone=alone)
