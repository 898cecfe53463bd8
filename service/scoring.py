"""The scoring core: requests in, replies out, no framework, no waiting, no store.

Requests of one turn are answered together: each is parsed by itself, those for the same champion
are judged in one call of the model, and each is answered by itself. What is wrong with one
request never touches another.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

import numpy as np

from models.version import Judgement
from service import log, payload
from service.answers import Reply, as_json, as_octets, as_problem, rows_of, wants_octets
from service.champion import Champion
from service.champions import Champions
from service.payload import Matrix
from service.problems import Problem, Unprocessable

_log = log.get(__name__)

_GATHERED_ROWS = 4096  # above this a request gains nothing from company, and copying costs
_ATTRIBUTED = 200_000  # attributions in one answer, about 20 MB of JSON
_VERSION_MAX = 2**31 - 1


class ScoreRequest(NamedTuple):
    """A request as it came; `pinned` is the version that its query names, already loaded."""

    name: str
    body: bytes
    content_type: str | None = None
    accept: str | None = None
    query: str = ""
    pinned: Champion | None = None


class Query(NamedTuple):
    """`?version=n&explain=k`."""

    version: int | None = None
    explain: int | None = None


class Parsed(NamedTuple):
    """A request that can be answered: with what, on which rows (n, d), how."""

    champion: Champion
    X: Matrix
    explain: int | None
    octets: bool


class Outcome(NamedTuple):
    """A reply and, unless it is a problem, what led to it."""

    reply: Reply
    parsed: Parsed | None = None
    columns: Judgement | None = None


class Recorder(Protocol):
    """Who is told of every answer: metrics, the live summary. Must be cheap and never fail."""

    def scored(self, champion: Champion, X: Matrix, columns: Judgement, seconds: float) -> None:
        """Take note of one answer that took `seconds`."""


def parse_query(query: str) -> Query:
    """Return what the query asks for; other parameters are ignored."""
    if not query:
        return Query()
    found: dict[str, int] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        raise Unprocessable("The query has too many parameters.") from None
    for name, text in pairs:
        if name not in Query._fields:
            continue
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0
        if name in found or not 1 <= value <= _VERSION_MAX:
            raise Unprocessable(f"`{name}` in the query is one whole number from 1.")
        found[name] = value
    return Query(**found)


def parse_request(champions: Champions, request: ScoreRequest) -> Parsed:
    """Return what `request` means; the champion is read here, once. Raises Problem."""
    champion = request.pinned or champions.serving(request.name)
    query = parse_query(request.query)
    octets = wants_octets(request.accept)
    if octets and query.explain:
        raise Unprocessable("Attributions are given in JSON only.")
    X = payload.matrix(
        payload.media_type(request.content_type), request.body, champion.version.dimension
    )
    explain = query.explain and min(query.explain, X.shape[1])
    if explain and explain * len(X) > _ATTRIBUTED:
        raise Unprocessable(
            f"At most {_ATTRIBUTED} attributions in one answer: send fewer vectors, or ask for "
            "fewer contributions each."
        )
    return Parsed(champion, X, explain, octets)


def judge(champion: Champion, X: Matrix) -> Judgement:
    """Return the judgement of X (n, d) under the threshold in force."""
    return champion.version.judge(X, champion.threshold)


def answer(parsed: Parsed, columns: Judgement) -> Reply:
    """Return the reply that the client asked for."""
    if parsed.octets:
        return as_octets(parsed.champion, columns)
    attributions = None
    if parsed.explain:
        attributions = parsed.champion.version.explain(parsed.X, parsed.explain)
    return as_json(parsed.champion, columns, attributions)


class Scoring:
    """Answers requests from what `champions` holds, and tells the recorders."""

    def __init__(self, champions: Champions, recorders: Sequence[Recorder] = ()) -> None:
        self.champions = champions
        self.recorders = tuple(recorders)

    def score(self, request: ScoreRequest) -> Reply:
        """Return the reply to one request."""
        return self.score_many((request,))[0]

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Reply]:
        """Return the replies to the requests of one turn, in their order."""
        started = time.perf_counter()
        outcomes = self.compute(requests)
        self.record(outcomes, time.perf_counter() - started)
        return [outcome.reply for outcome in outcomes]

    def compute(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """Parse, judge and answer; changes nothing, so that a thread may run it."""
        parsed = [self._parse(request) for request in requests]
        gathered = _gather([one for one in parsed if isinstance(one, Parsed)])
        return [
            Outcome(as_problem(one)) if isinstance(one, Problem) else _answer(one, gathered)
            for one in parsed
        ]

    def record(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Tell the recorders of every answer of a turn that took `seconds`."""
        for _, parsed, columns in outcomes:
            if parsed is not None and columns is not None:
                for recorder in self.recorders:
                    recorder.scored(parsed.champion, parsed.X, columns, seconds)

    def _parse(self, request: ScoreRequest) -> Parsed | Problem:
        try:
            return parse_request(self.champions, request)
        except Problem as problem:
            return problem
        except Exception:  # noqa: BLE001 - one bad request must not break its turn
            return _broken("parse")


def _gather(parsed: Sequence[Parsed]) -> dict[int, Judgement]:
    """Return, by the identity of each matrix, the columns of requests judged together."""
    groups: dict[int, list[Parsed]] = {}
    for one in parsed:
        if len(one.X) <= _GATHERED_ROWS:
            groups.setdefault(id(one.champion), []).append(one)
    found: dict[int, Judgement] = {}
    for group in groups.values():
        if len(group) == 1:
            continue
        try:
            columns = judge(group[0].champion, np.concatenate([one.X for one in group]))
        except Exception:  # noqa: BLE001 - whoever breaks the model is found when judged alone
            _log.exception("judging together failed", detector=group[0].champion.name)
            continue
        start = 0
        for one in group:
            stop = start + len(one.X)
            found[id(one.X)] = rows_of(columns, slice(start, stop))
            start = stop
    return found


def _answer(parsed: Parsed, gathered: dict[int, Judgement]) -> Outcome:
    try:
        columns = gathered.get(id(parsed.X)) or judge(parsed.champion, parsed.X)
        return Outcome(answer(parsed, columns), parsed, columns)
    except Problem as problem:
        return Outcome(as_problem(problem))
    except Exception:  # noqa: BLE001 - one bad request must not break its turn
        return Outcome(as_problem(_broken("score")))


def _broken(step: str) -> Problem:
    # The traceback holds code and shapes, never the payload.
    _log.exception("scoring failed", step=step)
    return Problem("The service failed; the failure is in its log.")
