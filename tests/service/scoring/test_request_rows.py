"""Rows by name, with times and sources, in every content type that has them."""

import gzip
import io
import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import ipc

from models import Config, Model, Version, train
from models.columns import Column
from models.context import Context, derive
from service.domain.champion import Champion
from service.domain.row_tags import RowTags, parse_times
from service.problems import BadVectors, Problem
from service.scoring.champions import Champions
from service.scoring.core import Judged, Scoring
from service.scoring.request import ScoreRequest
from service.scoring.request_rows import ModelRows, normal_rows, not_learned
from service.scoring.tables import ColumnRoles
from service.scoring.vectors import ARROW, CSV, JSON, NDJSON, OCTETS

MODEL = Model(epochs=3, hidden=(8,), latent=2)
COLUMNS = (Column("speed"), Column("temp"), Column("valve", "flag"))
NAMES = [column.name for column in COLUMNS]
OVER = 4
RNG = np.random.default_rng(0)
LEARNED = np.column_stack(
    [RNG.normal(10, 1, 400), RNG.normal(20, 2, 400), RNG.random(400) < 0.5]
).astype(np.float32)
ROWS = LEARNED[:12]
TIMES = 1.7e9 + 60.0 * np.arange(12)


def served(name: str, version: Version) -> Champion:
    """Return a champion that serves `version`."""
    threshold = version.threshold_for({"fpr": 0.01})
    return Champion(name, "u", 1, 1, 1, version, threshold)


@pytest.fixture(scope="module")
def champions() -> Champions:
    """Return three loaded champions: one by name, one with gaps, one with a context."""
    champions = Champions(2)
    named = Config(columns=COLUMNS, score="elbo", model=MODEL)
    champions.install(served("named", train(None, LEARNED, named)))
    gappy = Config(columns=COLUMNS, score="elbo", model=MODEL, missing="impute")
    champions.install(served("gappy", train(None, LEARNED, gappy)))
    context = Config(columns=COLUMNS, score="elbo", model=MODEL, context=Context(over=OVER))
    numbers = context.numbers(3)
    features = derive(context.context, LEARNED, numbers).features[OVER:]
    champions.install(served("timed", train(None, features, context)))
    return champions


class Notes:
    """Remembers the rows that it gets."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, RowTags]] = []

    def scored(self, judged: Judged, _seconds: float) -> None:
        _, X, columns, _, tags = judged
        assert len(columns.scores) == len(X)
        self.seen.append((len(X), tags))


def ask(
    champions: Champions, name: str, body: Any, kind: str = JSON, query: str = "", **more: Any
) -> tuple[int, Any]:
    """Return status and document of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = Scoring(champions, more.get("notes", ())).score(
        ScoreRequest(name, data, kind, more.get("accept"), query)
    )
    return reply.status, reply.body if more.get("accept") else orjson.loads(reply.body)


def records(X: np.ndarray = ROWS) -> list[dict[str, Any]]:
    """Return the rows by name, in another order than the detector's columns."""
    return [
        {"valve": bool(valve), "speed": float(speed), "temp": float(temp)}
        for speed, temp, valve in X
    ]


def table(X: np.ndarray = ROWS) -> str:
    """Return the rows as CSV, with more columns than the detector's."""
    lines = ["when,valve,machine,speed,note,temp"]
    for at, (speed, temp, valve) in zip(TIMES, X, strict=False):
        lines.append(f'{at},{"true" if valve else "no"},a,{speed!s},"x, y",{temp!s}')
    return "\n".join(lines)


def arrow(X: np.ndarray = ROWS) -> bytes:
    """Return the rows as an Arrow IPC stream."""
    columns = {
        "temp": pa.array(X[:, 1], pa.float64()),
        "when": pa.array((TIMES * 1e6).astype(int), pa.timestamp("us", "UTC")),
        "speed": pa.array(X[:, 0], pa.float32()),
        "valve": pa.array(X[:, 2] > 0),
        "machine": pa.array(["a"] * len(X)),
    }
    table = pa.table(columns)
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


LINES = "\n".join(
    json.dumps({"record": record, "timestamp": at, "source": "a"})
    for record, at in zip(records(), TIMES, strict=True)
)
BODIES = [
    (JSON, json.dumps({"records": records()}).encode(), ""),
    (NDJSON, LINES.encode(), ""),
    (CSV, table().encode(), "time=when&source=machine&drop=note"),
    (CSV, b"\xef\xbb\xbf" + table().replace("\n", "\r\n").encode(), "time=when&extra=drop"),
    (ARROW, arrow(), "time=when&source=machine"),
]


@pytest.mark.parametrize(("kind", "body", "query"), BODIES)
def test_rows_by_name_score_as_the_same_rows_by_position(champions, kind, body, query):
    """Rows by name score as by position, in every content type and order of columns."""
    status, by_position = ask(champions, "named", {"vectors": ROWS.tolist()})
    assert status == 200
    status, by_name = ask(champions, "named", body, kind, query)
    assert status == 200, by_name
    assert by_name["scores"] == pytest.approx(by_position["scores"], rel=1e-6)
    assert "states" not in by_name


REFUSED: list[tuple[str, Any, str, int | None, int | None, str]] = [
    (JSON, {"records": [{"speed": 1, "temp": 2}]}, "", 0, None, '"valve" missing'),
    (JSON, {"records": [*records(), records()[0] | {"x\n": 1}]}, "", 12, None, r'"x\x0a" unknown'),
    (JSON, {"records": [records()[0] | {"temp": "hot"}]}, "", 0, 1, '"temp" is not a number'),
    (JSON, {"records": [records()[0] | {"temp": True}]}, "", 0, 1, '"temp" is a boolean'),
    (JSON, {"records": [records()[0] | {"valve": "yes"}]}, "", 0, 2, '"valve" is not'),
    (JSON, {"records": [records()[0] | {"temp": None}]}, "", 0, 1, '"temp" is blank'),
    (JSON, b'{"records": [{"speed": NaN, "temp": 1, "valve": 0}]}', "", 0, 0, "finite"),
    (JSON, {"records": [records()[0] | {"temp": 1e300}]}, "", 0, 1, "finite float32"),
    (JSON, {"records": []}, "", None, None, "no vectors"),
    (JSON, {"records": [[1, 2, 3]]}, "", 0, None, "A record is an object"),
    (JSON, {"records": records(), "vectors": ROWS.tolist()}, "", None, None, "one of"),
    (JSON, b'{"records": [], "records": []}', "", None, None, "more than once"),
    (JSON, {"vectors": ROWS.tolist(), "timestamps": [0] * 11}, "", 11, None, "11 entries"),
    (JSON, {"vectors": ROWS.tolist(), "timestamps": ["now"] * 12}, "", 0, None, "RFC 3339"),
    (JSON, {"vectors": ROWS.tolist(), "timestamps": [1.7e12] * 12}, "", 0, None, "milliseconds"),
    (JSON, {"vectors": ROWS.tolist(), "timestamps": [True] * 12}, "", 0, None, "timestamps"),
    (JSON, {"vectors": ROWS.tolist(), "sources": ["a"] * 11 + ["x" * 129]}, "", 11, None, "bytes"),
    (JSON, {"vectors": ROWS.tolist(), "ids": list(range(12))}, "", 0, None, "`ids`"),
    (JSON, {"vectors": ROWS.tolist(), "context_rows": 1}, "", None, None, "context_rows"),
    (JSON, {"vectors": ROWS.tolist(), "context_rows": -1}, "", None, None, "context_rows"),
    (NDJSON, b'{"record": {"speed": 1}}', "", 0, None, '"temp", "valve" missing'),
    (NDJSON, LINES.encode() + b'\n{"record": 1}', "", 12, None, "A record is an object"),
    (NDJSON, b'{"speed": 1, "temp": 2, "valve": 0}', "", 0, None, "A line is"),
    (NDJSON, LINES.replace('"source": "a"', '"source": 1').encode(), "", 0, None, "`source`"),
    (NDJSON, LINES.replace(', "source": "a"', "", 1).encode(), "", 0, None, "on every line"),
    (NDJSON, b"\n \n", "", None, None, "no vectors"),
    (CSV, table().encode(), "", None, None, '"when", "machine", "note" unknown'),
    (CSV, table().encode(), "drop=nothing", None, None, '"nothing"; there is no such column'),
    (CSV, table().encode(), "time=machine&extra=drop", 0, None, "time is not valid"),
    (CSV, table().replace("no,", "maybe,").encode(), "extra=drop", None, 2, '"valve" is not'),
    (CSV, b"speed,temp,valve\n1,,0", "", 0, 1, '"temp" is blank'),
    (CSV, b"speed,temp,valve\n1,2,0\n1,2", "", 1, 2, "2 cells"),
    (CSV, b"speed,temp,temp,valve\n1,2,2,0", "", None, None, '"temp" given twice'),
    (CSV, b"1,2,3\n4,5,6", "", None, None, "no header"),
    (CSV, b"speed,temp,valve\n", "", None, None, "no vectors"),
    (CSV, b"speed,temp,valve\n1,\xff,0", "", None, None, "UTF-8"),
    (CSV, b"", "", None, None, "no header"),
    (ARROW, b"ARROW", "", None, None, "not an Arrow"),
    (ARROW, arrow(), "", None, None, '"when", "machine" unknown'),
    (ARROW, arrow(), "source=when&drop=machine", 0, None, "source is not a string"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_does_not_fit_is_refused_with_its_place(champions, case):
    """A row that does not fit is 422 with row and column, and without a value."""
    kind, body, query, row, column, refusal = case
    status, problem = ask(champions, "named", body, kind, query)
    assert status == 422, problem
    assert refusal in problem["detail"]
    if row is not None or column is None:
        assert problem.get("row") == row
    assert problem.get("column") == column


@pytest.mark.parametrize("query", ["record=maybe", "extra=all", "time=a&time=b"])
def test_an_invalid_query_is_refused_with_the_parameter(champions, query):
    """A wrong query is 422 with the parameter's name."""
    status, problem = ask(champions, "named", {"vectors": ROWS.tolist()}, query=query)
    assert status == 422
    assert query.partition("=")[0] in problem["detail"]


def test_a_blank_is_scored_on_the_observed_values(champions):
    """In JSON, CSV and by position, a blank is missing if the detector takes gaps."""
    gap = ROWS[:1].copy()
    gap[0, 1] = np.nan
    answers = [
        ask(champions, "gappy", {"vectors": [[float(gap[0, 0]), None, float(gap[0, 2])]]}),
        ask(champions, "gappy", {"records": [records()[0] | {"temp": None}]}),
        ask(champions, "gappy", f"temp,valve,speed\n,{gap[0, 2]},{gap[0, 0]}".encode(), CSV),
    ]
    scores = [document["scores"][0] for status, document in answers if status == 200]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_plain_records_are_judged_together_with_arrays(champions):
    """Records are judged in one turn with arrays, and get the same answers as alone."""
    notes = Notes()
    arrays, named = ({"vectors": ROWS[:2].tolist()}, {"records": records(ROWS[2:5])})
    bodies = [json.dumps(body).encode() for body in (arrays, named, {"records": []}, named)]
    replies = Scoring(champions, (notes,)).score_many(
        [ScoreRequest("named", body, JSON) for body in bodies]
    )
    assert [reply.status for reply in replies] == [200, 200, 422, 200]
    assert [n for n, _ in notes.seen] == [8]
    alone = ask(champions, "named", named)[1]["scores"]
    assert orjson.loads(replies[1].body)["scores"] == pytest.approx(alone, rel=1e-6)


def test_recorders_get_times_sources_and_ids(champions):
    """Recorders get times, sources and ids with their rows."""
    notes = Notes()
    sources = ["a", "b"] * 6
    ids = [f"row {i}" for i in range(12)]
    body = {"vectors": ROWS.tolist(), "timestamps": TIMES.tolist(), "sources": sources, "ids": ids}
    assert ask(champions, "named", body, notes=(notes,))[0] == 200
    ((n, tags),) = notes.seen
    assert n == 12
    assert tags.timestamp(3) == TIMES[3]
    assert (tags.source(3), tags.id(3)) == ("b", "row 3")


def test_times_may_have_small_letters():
    """RFC 3339 allows `t` and `z` in a time."""
    small, large = parse_times(["2026-01-01t00:00:00.5z", "2026-01-01T00:00:00.5Z"])
    assert small == large == 1_767_225_600.5


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.000z",
        "2016-12-31T15:59:60-08:00",
        "2017-01-01T05:29:60+05:30",
        "2016-12-31 23:59:60",
    ],
)
def test_a_leap_second_is_the_second_after_it(text: str):
    """RFC 3339 allows the second 60 at the end of a month in UTC, and nowhere else."""
    assert parse_times([text, "2017-01-01T00:00:00Z"]).tolist() == [1_483_228_800.0] * 2
    for other in ("2016-12-31T22:59:60Z", "2016-12-30T23:59:60Z", "2016-12-31T23:59:61Z"):
        with pytest.raises(BadVectors, match="time is not valid"):
            parse_times([other])


def test_an_unrecorded_request_reaches_no_recorder(champions):
    """A request that is not recorded gets the same answer, and recorders get nothing."""
    notes = Notes()
    body = {"records": records()}
    status, quiet = ask(champions, "named", body, query="record=false", notes=(notes,))
    assert status == 200
    assert not notes.seen
    assert ask(champions, "named", body)[1]["scores"] == quiet["scores"]


def test_rows_without_enough_context_are_warming(champions):
    """Rows without a full context are null in all four columns; the others are scored."""
    notes = Notes()
    status, body = ask(champions, "timed", {"vectors": ROWS.tolist()}, notes=(notes,))
    assert status == 200
    assert body["states"] == ["warming"] * OVER + ["scored"] * 8
    for column in ("scores", "p_values", "severities", "is_anomaly"):
        assert body[column][:OVER] == [None] * OVER
        assert None not in body[column][OVER:]
    version = champions.serving("timed").version
    features = derive(Context(over=OVER), ROWS, version.config.numbers(3)).features[OVER:]
    assert body["scores"][OVER:] == pytest.approx(version.score(features).tolist(), rel=1e-6)
    assert [n for n, _ in notes.seen] == [8]


def test_context_rows_give_the_answer_of_the_whole_history(champions):
    """The last row gets the same answer with only its context as in the whole history."""
    notes = Notes()
    history = ask(champions, "timed", {"vectors": ROWS.tolist()})[1]
    some = ROWS[-OVER - 1 :].tolist()
    body = {"vectors": some, "context_rows": OVER, "sources": ["a"] * (OVER + 1)}
    scored = ask(champions, "timed", body, notes=(notes,))[1]
    assert scored["states"] == ["context"] * OVER + ["scored"]
    assert scored["scores"][-1] == history["scores"][-1]
    assert [(n, tags.sources) for n, tags in notes.seen] == [(1, ("a",))]


def test_late_rows_have_a_state_of_their_own(champions):
    """A row that is not newer than the previous one of its source is late, and not judged."""
    times = TIMES.copy()
    times[8] = times[7]
    body = {"vectors": ROWS.tolist(), "timestamps": times.tolist()}
    scored = ask(champions, "timed", body)[1]
    assert scored["states"][8] == "late"
    assert scored["scores"][8] is None


def test_the_binary_answer_marks_rows_that_are_not_judged(champions):
    """A row that is not judged has verdict 255, and NaN in scores, p-values and severities."""
    body = {"vectors": ROWS.tolist()}
    _, data = ask(champions, "timed", body, accept=OCTETS)
    floats = np.frombuffer(data[: 3 * 12 * 4], "<f4").reshape(3, 12)
    verdicts = np.frombuffer(data[3 * 12 * 4 :], np.uint8)
    assert np.isnan(floats[:, :OVER]).all()
    assert np.isfinite(floats[:, OVER:]).all()
    assert verdicts[:OVER].tolist() == [255] * OVER
    assert set(verdicts[OVER:].tolist()) <= {0, 1}


def test_a_request_of_warming_rows_alone_is_answered(champions):
    """If all rows lack their context the answer is 200, and nothing is recorded."""
    notes = Notes()
    body = {"vectors": ROWS[:1].tolist()}
    status, scored = ask(champions, "timed", body, query="explain=2", notes=(notes,))
    assert status == 200
    assert (scored["scores"], scored["attributions"]) == ([None], [[]])
    assert not notes.seen


def test_attributions_name_the_columns_of_the_client(champions):
    """An attribution names the client's column, with value and expected value."""
    X = ROWS.copy()
    X[-1, 1] = 60.0
    body = ask(champions, "timed", {"vectors": X.tolist()}, query="explain=3")[1]
    assert [len(row) for row in body["attributions"]] == [0] * OVER + [3] * 8
    first = body["attributions"][-1][0]
    assert (first["feature"], first["value"]) == ("temp", 60.0)
    assert first["expected"] < 50
    assert {attribution["feature"] for attribution in body["attributions"][-1]} == set(NAMES)


def test_normal_rows_are_derived_before_they_are_kept():
    """Normal rows are derived before they are stored; rows that cannot be are counted by state."""
    config = Config(columns=COLUMNS, context=Context(over=OVER))
    body = json.dumps({"records": records(), "context_rows": 2}).encode()
    rows = normal_rows(JSON, body, config, ColumnRoles()).model
    assert rows.X.shape == (8, 5)
    assert not_learned(rows) == {"not_learned": {"warming": 2, "context": 2}}
    plain = normal_rows(JSON, body[:-20] + b"}", Config(columns=COLUMNS), ColumnRoles()).model
    assert not_learned(plain) == {}


def test_a_normal_row_may_lack_half_of_its_values():
    """If the detector takes gaps, a normal row may lack half of its values, and no more."""
    config = Config(columns=COLUMNS, missing="impute")
    one_gap = json.dumps({"records": [records()[0] | {"temp": None}]}).encode()
    rows = normal_rows(JSON, one_gap, config, ColumnRoles()).model
    assert np.isnan(rows.X).tolist() == [[False, True, False]]
    two_gaps = json.dumps({"records": [records()[0] | {"temp": None, "speed": None}]}).encode()
    with pytest.raises(Problem, match="1 of 3 numbers") as refused:
        normal_rows(JSON, two_gaps, config, ColumnRoles())
    assert refused.value.row == 0


def test_an_unnamed_detector_says_what_rows_by_name_need(champions):
    """For a detector without names, rows by name are refused with advice."""
    nameless = Config(dimension=3)
    for kind, body in ((JSON, b'{"records": [{"a": 1}]}'), (CSV, b"a\n1"), (NDJSON, b"{}")):
        with pytest.raises(Problem, match="give `columns`"):
            normal_rows(kind, body, nameless, ColumnRoles())


def test_a_compressed_body_is_not_decompressed(champions):
    """A compressed body is not decompressed: CSV must be text."""
    assert ask(champions, "named", gzip.compress(table().encode()), CSV)[0] == 422


def test_model_rows_are_all_rows_without_a_context():
    """Without a context all rows are model rows; `states` exists only if the config needs it."""
    rows = normal_rows(JSON, b'{"vectors": [[1, 2]]}', Config(), ColumnRoles()).model
    assert rows == ModelRows(rows.X, RowTags(), None)
