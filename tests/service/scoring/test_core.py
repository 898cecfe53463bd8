"""The scoring core: one turn, many requests."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from models.version.judgement import Judgement
from service.domain.row_tags import NO_TAGS
from service.scoring import vectors as payload
from service.scoring.answers import JsonRows, as_json, wants_octets
from service.scoring.champions import Champions
from service.scoring.core import Judged, Scoring, gather
from service.scoring.request import ScoreRequest, parse_query
from service.scoring.tables import ColumnRoles
from service.scoring.vectors import OCTETS
from tests.service.trained import champion, versions


class Notes:
    """Remembers what the core reports."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []

    def scored(self, judged: Judged, seconds: float) -> None:
        champion, X, columns, requests, tags = judged
        assert len(columns.scores) == len(X)
        assert seconds >= 0
        assert tags is NO_TAGS
        self.rows.append((champion.name, requests, len(X)))


@pytest.fixture
def champions() -> Champions:
    """Return two loaded champions."""
    champions = Champions(2)
    champions.install(champion(1))
    champions.install(champion(2, name="fan"))
    return champions


def body(X: np.ndarray) -> bytes:
    """Return the JSON body of a matrix."""
    return orjson.dumps({"vectors": X.tolist()})


def test_requests_get_equal_answers_together_and_alone(champions: Champions) -> None:
    """Requests that are judged together get the same answers as alone, whatever the others are."""
    rng = np.random.default_rng(0)
    requests = []
    for n in (1, 3, 2, 5):
        X = rng.normal(size=(n, 3)).astype(np.float32)
        requests += [
            ScoreRequest("pump", body(X)),
            ScoreRequest("fan", X.tobytes(), OCTETS),
            ScoreRequest("pump", b'{"vectors": [[1, NaN, 2]]}'),
            ScoreRequest("nobody", body(X)),
            ScoreRequest("pump", body(X), "text/tsv"),
            ScoreRequest("pump", body(X), query="explain=1"),
        ]
    notes = Notes()
    together = Scoring(champions, (notes,)).score_many(requests)
    alone = [Scoring(champions).score(request) for request in requests]
    assert [reply.status for reply in together] == [200, 200, 422, 404, 415, 200] * 4
    for answer, other in zip(together, alone, strict=True):
        answer_together, answer_alone = orjson.loads(answer.body), orjson.loads(other.body)
        assert answer_together.keys() == answer_alone.keys()
        for key, value in answer_together.items():
            if key in {"scores", "p_values", "severities"}:
                assert value == pytest.approx(answer_alone[key], rel=1e-4)
            elif key != "attributions":
                assert value == answer_alone[key]
    explained = [("pump", 1, n) for n in (1, 3, 2, 5)]
    assert sorted(notes.rows) == sorted([*explained, ("pump", 4, 11), ("fan", 4, 11)])


def test_a_breaking_model_breaks_its_request_only(
    champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is a 500 without details, for its own request alone."""
    broken = champion(1, name="broken")
    champions.install(broken)
    kind = type(broken.version)
    original = kind.judge

    def judge_or_fail(self: object, X: np.ndarray, threshold: object = None) -> Judgement:
        if (X == 4171).any():
            raise RuntimeError("4171")
        return original(self, X, threshold)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "judge", judge_or_fail)
    good, bad = np.zeros((2, 3)), np.full((1, 3), 4171)
    replies = Scoring(champions).score_many(
        [ScoreRequest("broken", body(X)) for X in (good, bad, good)]
    )
    assert [reply.status for reply in replies] == [200, 500, 200]
    assert b"4171" not in replies[1].body


def test_a_breaking_reader_breaks_its_request_only(
    champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector whose rows cannot be read leaves the other requests of its turn alone."""
    packed = payload.packed

    def read_or_fail(content_type: str | None, text: bytes, dimension: int) -> bytes | None:
        if b"4171" in text:
            raise RuntimeError("4171")
        return packed(content_type, text, dimension)

    monkeypatch.setattr(payload, "packed", read_or_fail)
    good, bad = np.zeros((2, 3)), np.full((1, 3), 4171)
    replies = Scoring(champions).score_many(
        [ScoreRequest("pump", body(X)) for X in (good, bad, good)]
    )
    assert [reply.status for reply in replies] == [200, 200, 200]


def test_a_swap_during_a_request_mixes_no_versions(champions: Champions) -> None:
    """A swap between parsing and judging does not mix two versions."""
    scoring = Scoring(champions)
    X = np.zeros((1, 3), np.float32)
    reply = orjson.loads(scoring.score(ScoreRequest("pump", body(X))).body)
    assert (reply["version"], reply["scores"]) == (1, versions()[0].score(X).tolist())
    champions.install(champion(2))
    reply = orjson.loads(scoring.score(ScoreRequest("pump", body(X))).body)
    assert (reply["version"], reply["scores"]) == (2, versions()[1].score(X).tolist())


@pytest.mark.parametrize(
    ("accept", "octets"),
    [
        (None, False), ("*/*", False), (OCTETS, True), (f"{OCTETS}, application/json", False),
        (f"{OCTETS}, application/json;q=0.5", True), (f"{OCTETS};q=0, */*", False),
        (f"{OCTETS};q=nan", False), (f"text/html, {OCTETS};q=0.1", True), (",;q=,", False),
    ],
)  # fmt: skip
def test_the_answer_is_binary_only_for_clients_that_prefer_it(
    accept: str | None, octets: bool
) -> None:
    """The answer is binary only for clients that prefer it."""
    assert wants_octets(accept) is octets


def test_unknown_query_parameters_are_ignored() -> None:
    """Unknown parameters are ignored."""
    assert parse_query("") == (None, None, True, ColumnRoles())
    assert parse_query("a=1&version=3&explain=2&record=false") == (3, 2, False, ColumnRoles())
    by = ColumnRoles(time="when", source="machine", id="n", drop=("a", "b"), extra=True)
    query = "time=when&source=machine&id=n&drop=a,b&extra=drop"
    assert parse_query(query) == (None, None, True, by)


def test_attributions_are_bounded(champions: Champions) -> None:
    """The number of attributions in an answer is bounded."""
    X = np.zeros((70_000, 3), "<f4").tobytes()
    reply = Scoring(champions).score(ScoreRequest("pump", X, OCTETS, query="explain=3"))
    assert reply.status == 422


@pytest.mark.parametrize(
    "nasty",
    [
        b"", b"{}", b'{"vectors": []}', b'{"vectors": [[]]}', b'{"vectors": [[1, 2]]}',
        b'{"vectors": [[1, 2, 3], [1, 2]]}', b'{"vectors": [[1, 2, 1e39]]}',
        b'{"vectors": [[1, 2, 1e999]]}', b'{"vectors": [[1, 2, NaN]]}',
        b'{"vectors": [[1, 2, "3"]]}',
        b'{"vectors": [[1, 2, true]]}', b'{"vectors": [[1, 2, 3]], "vectors": [[1, 2, 3]]}',
        b'{"vectors": [[1, 2, 3]], "other": 1}', b"\xff", b"[" * 5000,
    ],
)  # fmt: skip
def test_errors_have_the_same_text_alone_and_together(champions: Champions, nasty: bytes) -> None:
    """An error in a body has the same text, whichever requests are judged with it."""
    good = body(np.ones((1, 3)))
    company = [ScoreRequest("pump", good), ScoreRequest("pump", nasty), ScoreRequest("pump", good)]
    alone = Scoring(champions, ()).score(ScoreRequest("pump", nasty))
    first, middle, last = Scoring(champions, ()).score_many(company)
    assert (first.status, middle.status, last.status) == (200, 422, 200)
    assert middle == alone


@pytest.mark.parametrize("n", [1, 2, 64, 65, 300])
def test_answers_of_a_joint_judgement_are_written_the_same(champions: Champions, n: int) -> None:
    """Answers to joined rows are byte for byte those to single requests."""
    X = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    X[0] *= 1e30
    serving = champions.serving("pump")
    columns = serving.version.judge(X, serving.threshold)
    assert JsonRows(serving, columns).reply(slice(0, n)) == as_json(serving, columns, None)


def test_a_large_body_is_read_only_once(
    champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is too large to share a turn is read only once."""
    monkeypatch.setattr(payload, "packed", lambda *_: pytest.fail("read"))
    large = body(np.zeros((2**17, 3), np.float32))
    assert list(gather(champions, [ScoreRequest("pump", large)])) == []


def test_null_is_scored_once_the_detector_imputes(champions: Champions) -> None:
    """Null is 422 under `refuse`; under `impute` it is scored, and full rows as before."""
    request = ScoreRequest("pump", b'{"vectors": [[0.1, null, 0.2], [0.1, 0.3, 0.2]]}')
    assert Scoring(champions).score(request).status == 422
    refusing = champion(1, generation=2)
    config = replace(refusing.version.config, missing="impute")
    imputing = replace(refusing, version=refusing.version.with_config(config))
    champions.install(imputing)
    notes = Notes()
    reply = Scoring(champions, (notes,)).score(request)
    assert reply.status == 200
    scores = orjson.loads(reply.body)["scores"]
    assert np.isfinite(scores).all()
    assert scores[1] == refusing.version.score([[0.1, 0.3, 0.2]])[0]
    assert notes.rows == [("pump", 1, 2)]
