"""The scoring core turns requests into replies. It never waits, and it never asks the store.

All requests of one turn of the event loop are answered together. Each request is parsed by itself.
The rows for the same champion are judged in one call of the model. Each request gets its own
answer. An error in one request never affects another request.
"""

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from models.arrays import Array
from models.context import IGNORED, SCORED
from models.version.judgement import Judgement, rows_of
from service import log
from service.domain.champion import Champion
from service.domain.columns import Columns
from service.domain.row_tags import NO_TAGS, RowTags
from service.domain.words import SEEN
from service.problems import Problem, Unprocessable, unexpected
from service.scoring import request_rows, vectors
from service.scoring.answers import (
    EMPTY_JUDGEMENT,
    JsonRows,
    Reply,
    as_json,
    as_octets,
    as_problem,
    wants_octets,
)
from service.scoring.champions import Champions
from service.scoring.records import Records, records_of
from service.scoring.request import ScoreRequest, parse_query
from service.scoring.request_rows import ModelRows
from service.scoring.vectors import JSON

_log = log.get(__name__)

_GATHERED_BYTES = 2**20  # most of one body, and of the float32 rows of one batch
_EXPLAINED = 2_000  # vectors in one answer; one explanation costs as much as 200 scores


class Parsed(NamedTuple):
    """A valid request: the champion that answers it, its rows, and the form of the answer."""

    champion: Champion
    rows: ModelRows
    explain: int | None
    octets: bool
    recorded: bool = True


class Judged(NamedTuple):
    """The rows X (n, w) of `requests` requests, judged in one call, and their judgement.

    `tags` are the times, sources and ids of the rows.
    """

    champion: Champion
    X: Array
    judgement: Judgement
    requests: int = 1
    tags: RowTags = NO_TAGS


class ScoredTurn(NamedTuple):
    """The replies to the requests of one turn, in the same order, and the judgements."""

    replies: list[Reply]
    judged: list[Judged]


class Recorder(Protocol):
    """Takes note of every answer, for example for metrics. It must be cheap and never fail."""

    def scored(self, judged: Judged, seconds: float) -> None:
        """Take note of the answers to the requests of `judged`, which took `seconds`."""


def parse_request(champions: Champions, request: ScoreRequest) -> Parsed:
    """Return the parsed `request` with the champion that serves now. Raises Problem."""
    champion = request.pinned or champions.serving(request.name)
    query = parse_query(request.query)
    octets = wants_octets(request.accept)
    if octets and query.explain:
        raise Unprocessable(
            "Only a JSON answer has attributions. Accept JSON, or leave out `explain`."
        )
    config, kind = champion.version.config, vectors.media_type(request.content_type)
    dimension = config.columns_in(champion.version.dimension)
    sent = request_rows.read(kind, request.body, config, query.roles, dimension)
    rows = request_rows.model_rows(sent, config, champion.rules)
    explain = query.explain and min(query.explain, dimension)
    if explain and len(rows.X) > _EXPLAINED:
        raise Unprocessable(
            f"At most {_EXPLAINED} vectors are explained in one answer: send fewer, or score first "
            "and ask for those that alarm."
        )
    return Parsed(champion, rows, explain, octets, query.record)


def judge(champion: Champion, X: Array) -> Judgement:
    """Return the judgement of X (n, w) with the threshold of `champion`."""
    return champion.version.judge(X, champion.threshold) if len(X) else EMPTY_JUDGEMENT


def apply_rules(parsed: Parsed, judgement: Judgement) -> tuple[Parsed, Judgement]:
    """Apply the rules for rows: an ignored anomaly gets the state `ignored`."""
    champion, (X, tags, states) = parsed.champion, parsed.rows
    if states is None or not champion.rules.ignore or not len(X):
        return parsed, judgement
    ignored = champion.rules.ignored(champion.version, champion.threshold, X, judgement.is_anomaly)
    states = states.copy()
    states[np.flatnonzero(states == SCORED)[ignored]] = IGNORED
    judgement = judgement._replace(is_anomaly=judgement.is_anomaly & ~ignored)
    return parsed._replace(rows=ModelRows(X, tags, states)), judgement


def answer(parsed: Parsed, judgement: Judgement) -> Reply:
    """Return the reply in the form that the client asked for."""
    X, _, states = parsed.rows
    if parsed.octets:
        return as_octets(parsed.champion, judgement, states)
    attributions = None
    if parsed.explain:
        version = parsed.champion.version
        attributions = version.explain(X, parsed.explain, SEEN.word) if len(X) else []
    return as_json(parsed.champion, judgement, attributions, states)


class Scoring:
    """Answers requests with the versions in `champions`, and informs the recorders."""

    def __init__(self, champions: Champions, recorders: Sequence[Recorder] = ()) -> None:
        self.champions = champions
        self.recorders = tuple(recorders)

    def score(self, request: ScoreRequest) -> Reply:
        """Return the reply to one request."""
        return self.score_many((request,))[0]

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Reply]:
        """Return the replies to the requests of one turn, in their order."""
        started = time.perf_counter()
        turn = self.compute(requests)
        self.record(turn, time.perf_counter() - started)
        return turn.replies

    def compute(self, requests: Sequence[ScoreRequest]) -> ScoredTurn:
        """Parse, judge and answer the requests. This changes no state, so a thread may run it."""
        judged: list[Judged] = []
        answered: dict[int, Reply] = {}
        for batch in gather(self.champions, requests):
            try:
                judged.append(batch.answer(answered))
            except Exception:  # noqa: BLE001 - each request is then judged alone
                _log.exception(
                    "judging requests together failed; each is judged alone",
                    detector=batch.champion.name,
                )
        replies = [
            answered[i] if i in answered else self._answer_alone(request, judged)
            for i, request in enumerate(requests)
        ]
        return ScoredTurn(replies, judged)

    def record(self, turn: ScoredTurn, seconds: float) -> None:
        """Inform the recorders of every answer of a turn that took `seconds`."""
        for judged in turn.judged:
            for recorder in self.recorders:
                recorder.scored(judged, seconds)

    def _answer_alone(self, request: ScoreRequest, judged: list[Judged]) -> Reply:
        """Return the reply to a request that no batch answered; add its judgement to `judged`."""
        try:
            parsed = parse_request(self.champions, request)
            parsed, judgement = apply_rules(parsed, judge(parsed.champion, parsed.rows.X))
            reply = answer(parsed, judgement)
        except Problem as problem:
            return as_problem(problem)
        except Exception as error:  # noqa: BLE001 - one bad request must not break its turn
            # The traceback holds code and shapes, never the payload.
            _log.exception("scoring failed", detector=request.name)
            return as_problem(unexpected(error))
        if parsed.recorded and len(parsed.rows.X):
            X, tags, _ = parsed.rows
            judged.append(Judged(parsed.champion, X, judgement, tags=tags))
        return reply


class Batch:
    """Plain requests for one champion, whose rows are judged in one call."""

    def __init__(self, champion: Champion) -> None:
        self.champion = champion
        self.dimension = champion.version.dimension
        self.words = champion.version.config.words
        self.rows = 0
        self.size = 0  # bytes of the rows
        self._packed: list[bytes] = []
        self._members: list[tuple[int, int, bool]] = []

    @cached_property
    def records(self) -> Records | None:
        """The reader of rows by name, or None if the detector's columns have no names."""
        config = self.champion.version.config
        if config.names is None:
            return None
        return records_of(Columns.of(config), gaps=False, extra=False)

    def add(self, number: int, packed: bytes, octets: bool) -> None:
        """Add request `number` of the turn, with its rows as float32 and the form of its answer."""
        self._packed.append(packed)
        self.size += len(packed)
        self.rows += len(packed) // (4 * self.dimension)
        self._members.append((number, self.rows, octets))

    def answer(self, answered: dict[int, Reply]) -> Judged:
        """Judge all rows; store each reply in `answered` under the number of its request."""
        champion = self.champion
        X = np.frombuffer(b"".join(self._packed), "<f4").reshape(self.rows, -1)
        judgement = judge(champion, X)
        as_rows = JsonRows(champion, judgement)
        start = 0
        for number, stop, octets in self._members:
            rows = slice(start, stop)
            answered[number] = (
                as_octets(champion, rows_of(judgement, rows)) if octets else as_rows.reply(rows)
            )
            start = stop
        return Judged(champion, X, judgement, len(self._members))


def gather(champions: Champions, requests: Sequence[ScoreRequest]) -> Iterable[Batch]:
    """Return batches of the requests that can be judged together: plain, valid and small ones.

    Every other request is answered alone, and its errors are reported there.
    """
    batches: dict[str, Batch] = {}
    for number, (name, body, content_type, accept, query, pinned, _) in enumerate(requests):
        if query or pinned is not None or len(body) > _GATHERED_BYTES:
            continue
        batch = batches.get(name)
        if batch is None:
            # One read for the whole batch: a swap during the call must not mix two versions.
            champion = champions.get(name)
            if champion is None or not champion.plain:
                continue
            batch = Batch(champion)
        packed = None
        try:
            if not batch.words:
                packed = vectors.packed(content_type, body, batch.dimension)
            if packed is None and content_type == JSON and batch.records is not None:
                packed = batch.records.packed(body)
        except Exception:  # noqa: BLE001 - the request is answered alone, the others together
            _log.exception("reading a request with others failed; it is read alone", detector=name)
            continue
        if packed is not None and batch.size + len(packed) <= _GATHERED_BYTES:
            batch.add(number, packed, accept is not None and wants_octets(accept))
            batches[name] = batch
    return batches.values()
