"""Large bodies are read in pieces: nothing differs, and no small body becomes large in memory."""

import dataclasses
import io
import itertools
import json
import random
import tracemalloc

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from models.config import Config
from service.problems import BadVectors, Problem, TooLarge
from service.scoring import arrow_tables, json_vectors, pieces, request_rows, tables
from service.scoring.tables import ColumnRoles
from service.scoring.vectors import ARROW, CSV, JSON, NDJSON

NAMED = Config(features=("a", "b"))
WORDS = msgspec.convert(
    {"columns": [{"name": "a", "type": "number"}, {"name": "w", "type": "category"}]}, Config
)
IMPUTED = dataclasses.replace(WORDS, missing="impute")
N = 220_000


def read(kind: str, body: bytes, config: Config = NAMED, **by: object) -> request_rows.RequestRows:
    """Return the rows of a body."""
    return request_rows.read(kind, body, config, ColumnRoles(**by), 2)


def random_json(rng: random.Random, depth: int = 0) -> object:
    """Return a random JSON value, with brackets, commas, quotes and backslashes in its texts."""
    kind = rng.randrange(6 if depth < 3 else 3)
    if kind < 3:
        return [None, 1.5, "".join(rng.choices('[]{},:"\\ a\u00e9', k=rng.randrange(9)))][kind]
    inner = [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inner if kind < 5 else dict(zip(("x", "]", ',{"', "\\"), inner, strict=False))


def decoded(text: bytes) -> object:
    """Return the list that the pieces of `text` make together."""
    lists = [msgspec.json.decode(piece) for piece in pieces.lists(text)]
    return list(itertools.chain.from_iterable(lists)) if len(lists) > 1 else lists[0]


def test_a_list_in_pieces_is_the_list(monkeypatch):
    """Pieces together have the elements of the list; a malformed list has a malformed piece."""
    monkeypatch.setattr(pieces, "PIECE", 16)
    rng = random.Random(0)
    cut = 0
    for _ in range(120):
        value = [random_json(rng) for _ in range(rng.randrange(30))]
        text = bytearray(json.dumps(value, ensure_ascii=rng.random() < 0.5).encode())
        assert decoded(bytes(text)) == value
        cut += len(list(pieces.lists(bytes(text)))) > 1
        at = rng.randrange(len(text))
        text[at : at + rng.randrange(2)] = rng.choice([b"", b",", b"]", b'"', b"\\", b"   ,   "])
        try:
            damaged = msgspec.json.decode(bytes(text))
        except (msgspec.DecodeError, UnicodeDecodeError):
            with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
                decoded(bytes(text))
        else:
            assert decoded(bytes(text)) == damaged
    assert cut > 30


def test_any_name_of_a_column_is_read():
    """Names with quotes, backslashes and control characters are read, by name and by position."""
    config = Config(features=('5" pipe', "a\\b\x1b"))
    rows = [{'5" pipe': 1.0, "a\\b\x1b": 2.0}, {"a\\b\x1b": 4.0, '5" pipe': 3.0}]
    lines = b"\n".join(json.dumps({"record": row}).encode() for row in rows)
    for kind, body in [
        (JSON, json.dumps({"records": rows}).encode()),
        (JSON, b'{"vectors": [[1, 2], [3, 4]]}'),
        (NDJSON, lines),
    ]:
        assert read(kind, body, config).X.tolist() == [[1, 2], [3, 4]]
    rows[1] = {"c0": 3.0, "c1": 4.0}
    for kind, body in [
        (JSON, json.dumps({"records": rows}).encode()),
        (NDJSON, lines + b'\n{"record": {"c0": 1, "c1": 2}}'),
    ]:
        with pytest.raises(BadVectors, match="missing"):
            read(kind, body, config)


def outcome(kind: str, body: bytes, config: Config, **by: object) -> object:
    """Return the rows and labels of a body, or its problem."""
    try:
        parsed = read(kind, body, config, **by)
    except Problem as problem:
        return problem.to_dict()
    return parsed.X.tolist(), parsed.tags.sources


ROWS = [{"a": float(i), "b": -i / 3} for i in range(40)]
LINES = b"\n".join(
    json.dumps({"record": row, "source": f"s{i}"}).encode() for i, row in enumerate(ROWS)
)
TABLE = b"a,b,s\n" + b"".join(b"%d,%d,x%d\n" % (i, -i, i) for i in range(40))
BAD = {"a": 1.0, "b": "x"}
CASES = [
    (JSON, json.dumps({"records": ROWS, "sources": [f"s{i}" for i in range(40)]}).encode(), {}),
    (JSON, json.dumps({"records": [*ROWS, BAD]}).encode(), {}),
    (JSON, json.dumps({"records": [*ROWS, {"a": float("nan"), "b": 1}]}).encode(), {}),
    (JSON, json.dumps({"records": ROWS, "sources": ["s"] * 39 + [1]}).encode(), {}),
    (JSON, json.dumps({"records": ROWS}).encode()[:-2] + b",]}", {}),
    (NDJSON, LINES, {}),
    (NDJSON, LINES + b'\n{"record": {"a": 1}}', {}),
    (NDJSON, LINES + b'\n{"record": {"a": 1, "b": 2}}', {}),
    (CSV, TABLE, {"source": "s"}),
    (CSV, TABLE + b"1,x,y\n", {"source": "s"}),
    (CSV, TABLE + b"1,2\n", {"source": "s"}),
    (CSV, TABLE + b"1,,y\n", {"source": "s"}),
]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_pieces_change_no_answer(monkeypatch, case):
    """However small the pieces are, the rows are the same, or the problem names the same row."""
    kind, body, by = case
    at_once = outcome(kind, body, NAMED, **by)
    monkeypatch.setattr(pieces, "PIECE", 64)
    monkeypatch.setattr(tables, "_BLOCK_CELLS", 8)
    assert outcome(kind, body, NAMED, **by) == at_once


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"vectors":[[' + b"1," * N + b"1]]}"),
        (JSON, b'{"vector\\u0073":[[' + b"1," * N + b"1]]}"),
        (JSON, b'{"vectors":[[1,2]],"ids":[' + b'"",' * N + b'""]}'),
        (JSON, b'{"vectors":[[1,2]],"timestamps":[' + b"0," * N + b"0]}"),
        (JSON, b'{"vectors":[[1,2]],' + b'"ids":[],' * (N // 4) + b'"ids":[]}'),
        (JSON, b'{"records":[' + b"{}," * N + b"{}]}"),
        (JSON, b'{"records":[{"a":[' + b'"a",' * N + b'"a"]}]}'),
        (NDJSON, b'{"record":{"a":[' + b'"a",' * N + b'"a"]}}'),
        (NDJSON, b"{}\n" * N),
        (CSV, b"a," * N + b"b\n"),
        (CSV, b'a,b\n"' + b'\n",,"' * N),
        (CSV, b"a,b\n" + b"\n" * N + b"1,2\n"),
        (CSV, b"a,b\n" + b"\r" * N + b"1,2\n"),
    ],
    ids=range(13),
)
def test_impossible_bodies_are_refused_in_little_memory(monkeypatch, kind, body):
    """Values that no request can have are refused, in a few times the body's size."""
    monkeypatch.setattr(pieces, "MAX_ROWS", 2**13)
    monkeypatch.setattr(tables, "MOST_LINES", 2**14)
    monkeypatch.setattr(pieces, "PIECE", 2**14)
    monkeypatch.setattr(json_vectors, "PIECE", 2**14)
    tracemalloc.start()
    try:
        with pytest.raises((BadVectors, TooLarge)):
            read(kind, body)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body) + 2**22
    finally:
        tracemalloc.stop()


LONG = 3 * 2**14


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"vectors":[' + b"{}," * LONG + b"{}]}"),
        (JSON, b'{"vectors":[[1,2]' + b"]" * LONG),
        (JSON, b'{"vectors":' + b"[" * LONG),
        (JSON, b'{"vectors":[[0.' + b"9" * LONG + b",1]]}"),
        (JSON, b'{"vectors":[[1,2]]' + b',"vectors":[[1,2]]' * (LONG // 18) + b"}"),
        (JSON, b'{"vectors":[[1,2]],"sources":' + b"[" * LONG + b"]" * LONG + b"}"),
        (JSON, b'{"records":[{' + b'"a":1,' * (LONG // 6) + b'"b":1}]}'),
        (NDJSON, b'{"record":{' + b'"a":1,' * (LONG // 6) + b'"b":1}}'),
    ],
    ids=range(8),
)
def test_a_row_that_does_not_end_is_not_decoded(monkeypatch, kind, body):
    """A row of unbounded length is not decoded: a decoder holds the interpreter lock."""
    for name in ("PIECE", "LONGEST"):
        monkeypatch.setattr(pieces, name, 2**12)
        monkeypatch.setattr(json_vectors, name, 2**12)
    with pytest.raises(BadVectors, match=r"does not end within 4096 bytes|bracket or a comma"):
        read(kind, body)


def test_the_quick_reader_keeps_little_memory():
    """A long body is left to the other reader.

    The quick reader would keep up to ten bytes of memory for each byte of its longest body.
    """
    row = b"[1,2]"
    longer = b"[" + b",".join([row] * (json_vectors._QUICK_BYTES // len(row))) + b"]"
    assert json_vectors.quick(longer, 2, whole=False) is None


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    """Return the table as an Arrow IPC stream."""
    out = io.BytesIO()
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


HUGE = "x" * 2**19
ONE_OF = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, "i1")), pa.array([HUGE]))
_, ONE_VIEW, TEXT = pa.array([HUGE], pa.string_view()).buffers()
VIEWS = pa.py_buffer(ONE_VIEW.to_pybytes()[:16] * 2000)
VIEW = pa.Array.from_buffers(pa.string_view(), 2000, [None, VIEWS, TEXT])
NOTHING = np.zeros(2**20)


@pytest.mark.parametrize(
    ("table", "compression", "status"),
    [
        ({"a": NOTHING[:4], "w": pa.array([b"\0" * 2**21] * 4, pa.binary())}, "zstd", 413),
        ({"a": NOTHING, "w": NOTHING}, "lz4", 413),
        ({"a": NOTHING[:2000], "w": ONE_OF}, None, 422),
        ({"a": NOTHING[:2000], "w": VIEW}, None, 422),
        ({"a": NOTHING[:1], "w": pa.array([["x"]])}, None, 422),
        ({"a": NOTHING[:1], **{str(n): NOTHING[:1] for n in range(2000)}}, None, 422),
    ],
    ids=["long text", "many rows", "dictionary", "view", "nested", "columns"],
)
def test_an_arrow_stream_that_decompresses_too_far_is_refused(
    monkeypatch, table, compression, status
):
    """The size of a stream in memory is bounded before it is read, however small the stream is."""
    monkeypatch.setattr(arrow_tables, "MOST_BYTES", 2**22)
    body = stream(pa.table(table), compression)
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as refused:
            read(ARROW, body, WORDS)
        assert refused.value.status == status
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert pa.default_memory_pool().max_memory() <= before + 2**23


def test_arrow_is_read_in_every_form():
    """Arrow that is compressed, in dictionaries, as views or in batches gives the same rows."""
    a, words = np.arange(60.0), ["idle", "run", None] * 20
    plain = read(ARROW, stream(pa.table({"a": a, "w": words}).slice(0, 59)), IMPUTED)
    views = pa.array(words, pa.string_view())
    for column in (
        words,
        views,
        pa.array(words).dictionary_encode(),
        pa.array(words, "large_string"),
    ):
        for compression in (None, "zstd", "lz4"):
            table = pa.table({"a": a, "w": column}).slice(0, 59)
            parts = pa.Table.from_batches(table.to_batches(max_chunksize=7))
            rows = read(ARROW, stream(parts, compression), IMPUTED)
            np.testing.assert_array_equal(rows.X, plain.X)
