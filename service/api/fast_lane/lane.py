"""The fast lane: answers the score requests of one turn of the event loop in one call of the model.

A web framework makes a task, a scope and a dozen calls for each request. This costs ten times as
much as scoring one vector. So the connection gives plain score requests to the lane, and all others
to the framework. Both use `service.scoring.core` for limits, errors, metrics and drift.
"""

import asyncio
from collections import deque
from typing import NamedTuple, Protocol

from service import log
from service.api.access import Access
from service.api.body_budget import BodyBudget
from service.api.fast_lane.response_bytes import Headers, ResponseEncoder
from service.api.origin import Hosts
from service.problems import UnsupportedMedia, unexpected
from service.scoring.answers import Reply, as_problem
from service.scoring.champions import Champions
from service.scoring.core import Scoring
from service.scoring.cost import budget_share
from service.scoring.request import ScoreRequest
from service.scoring.vectors import media_type

_log = log.get(__name__)

_BEFORE, _AFTER = b"/v1/detectors/", b"/score"
_LONGEST = len(_BEFORE) + 64 + 1 + 64 + len(_AFTER)  # bytes of the path with the longest name
# Bounds on the requests of one turn: about a millisecond of work, then other connections are read.
_MOST_REQUESTS = 256
_MOST_BYTES = 256 * 1024
# Parsed heads are cached, since a client mostly sends the same head again.
_HEADS = 4096
_LONGEST_HEAD = 1024


class _Event:
    def set(self) -> None:
        """Do nothing: no task waits for this event."""


class LaneCycle:
    """Replaces uvicorn's request object of a connection while the lane has its requests."""

    response_complete = True
    waiting_for_100_continue = False
    disconnected = False
    keep_alive = True
    message_event = _Event()


class ParsedHead(NamedTuple):
    """A cached head: the request without its body, its API key, and the body's type and length."""

    request: ScoreRequest
    authorization: bytes | None
    media_type: str
    length: int


class WaitingConnection(Protocol):
    """A connection that waits for replies."""

    def answered(self, reply: Reply) -> None:
        """Receive the reply to the oldest unanswered request."""


class Lane:
    """Collects the requests of one turn of the event loop. A process has one lane."""

    def __init__(
        self,
        champions: Champions,
        scoring: Scoring,
        access: Access,
        hosts: Hosts,
        budget: BodyBudget,
    ) -> None:
        self.budget = budget
        self._champions = champions
        self._scoring = scoring
        self._access = access
        self._hosts = hosts
        # Called with a request's `Authorization` header and its detector.
        self.admit = access.admit
        self.encode = ResponseEncoder().encode
        self._waiting: deque[tuple[WaitingConnection, ScoreRequest]] = deque()
        self._heads: dict[bytes, ParsedHead] = {}

    def cached_request(self, data: bytes) -> ScoreRequest | None:
        """Return the request if `data` is exactly one request whose head is cached, else None.

        The head is not parsed again. Body, key and detector are checked as always.
        """
        end = data.find(b"\r\n\r\n") + 4
        known = self._heads.get(data[:end])
        if known is None or len(data) != end + known.length:
            return None
        name, _, content_type, accept, *_ = known.request
        champion = self._champions.get(name)
        if champion is None:
            return None
        cost = budget_share(known.media_type, known.length, champion.inline)
        if cost > 1 or self.admit(known.authorization, name) is None:
            return None
        return ScoreRequest(name, data[end:], content_type, accept, "", None, cost)

    def remember(self, data: bytes, request: ScoreRequest, authorization: bytes | None) -> None:
        """Cache the head of `data` if nothing but the body of `request` follows the head."""
        end = data.find(b"\r\n\r\n") + 4
        # If the rest is not the body, the parser found the end of the head at another place.
        if end > _LONGEST_HEAD or data[end:] != request.body:
            return
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        kind = media_type(request.content_type)
        known = ParsedHead(request._replace(body=b""), authorization, kind, len(request.body))
        self._heads[data[:end]] = known

    def plain_request(self, url: bytes, headers: Headers) -> ScoreRequest | None:
        """Return the request without its body if it is a plain one, else None.

        A plain request is a POST over HTTP/1.1 for a loaded detector. It has no query. The length
        of its body is known and small enough to be scored in the event loop. It has none of the
        headers in `_SPECIAL`. `headers` are all headers but `Authorization`, which `admit` checks.
        """
        named = dict(headers)
        if len(named) != len(headers) or not _is_plain(url, named):
            return None
        host = named.get(b"host")
        # Any host is accepted while keys are required. Once a key exists, keys are required for
        # good. So a head that was cached with any host stays valid.
        if host is None or not (self._access.guarded or self._hosts.knows(host)):
            return None
        name = url[len(_BEFORE) : -len(_AFTER)].decode("latin-1")
        champion = self._champions.get(name)
        content_type = named[b"content-type"].decode("latin-1")
        try:
            kind = media_type(content_type)
        except UnsupportedMedia:
            return None
        if champion is None:
            return None
        cost = budget_share(kind, int(named[b"content-length"]), champion.inline)
        accept = named.get(b"accept")
        accepted = None if accept is None else accept.decode("latin-1")
        request = ScoreRequest(name, b"", content_type, accepted, "", None, cost)
        return request if cost <= 1 else None

    def ask(
        self, connection: WaitingConnection, request: ScoreRequest, *, alone: bool = False
    ) -> None:
        """Answer the request together with all requests of this turn.

        It is answered at once if it is `alone` and no other waits.
        """
        first = not self._waiting
        self._waiting.append((connection, request))
        if first and alone:
            self._answer_waiting()
        elif first:
            asyncio.get_running_loop().call_soon(self._answer_waiting)

    def _answer_waiting(self) -> None:
        connections: list[WaitingConnection] = []
        requests: list[ScoreRequest] = []
        size, cost = 0, 0.0
        while self._waiting and len(requests) < _MOST_REQUESTS and size < _MOST_BYTES and cost < 1:
            connection, request = self._waiting.popleft()
            connections.append(connection)
            requests.append(request)
            size += len(request.body)
            cost += request.share
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_waiting)
        try:
            replies = self._scoring.score_many(requests)
        except Exception as error:  # noqa: BLE001 - every waiting connection must get an answer
            _log.exception("scoring a batch of requests failed")
            replies = [as_problem(unexpected(error))] * len(requests)
        for connection, reply in zip(connections, replies, strict=True):
            connection.answered(reply)


# Headers that only the application handles. It refuses a second `Authorization`, and requests that
# a page of another web origin caused.
_SPECIAL = frozenset(
    (
        b"authorization", b"content-encoding", b"expect", b"origin", b"sec-fetch-site",
        b"transfer-encoding", b"upgrade", b"x-api-key",
    )
)  # fmt: skip


def _is_plain(url: bytes, named: dict[bytes, bytes]) -> bool:
    length = named.get(b"content-length", b"")
    return (
        len(url) <= _LONGEST
        and url.startswith(_BEFORE)
        and url.endswith(_AFTER)
        and _SPECIAL.isdisjoint(named)
        and b"content-type" in named
        and length.isdigit()
        and len(length) <= 9
    )
