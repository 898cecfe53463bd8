"""`score`: the answers of the contract."""

import io

import numpy as np
import pytest

from service.store.redis_keys import Keys
from tests.contract.running import Running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PATH = "/v1/detectors/pump/score"
X = np.array([[0, 0, 0], [50, 50, 50]], np.float32)
JSON = {"content-type": "application/json"}


def npy(array: np.ndarray) -> bytes:
    """Return the bytes that numpy.save writes."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


async def test_json_answers_have_the_fields_of_the_contract(
    pump: Running, versions: Versions
) -> None:
    """JSON answers hold the fields of the contract and equal the library's judgement."""
    answer = await pump.http.post(PATH, json={"vectors": X.tolist()})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == [
        "detector", "version", "generation", "config_revision", "threshold", "calibration",
        "scores", "p_values", "severities", "is_anomaly",
    ]  # fmt: skip
    expected = versions[0].judge(X)
    assert body["scores"] == pytest.approx(expected.scores.tolist())
    assert body["p_values"] == pytest.approx(expected.p_values.tolist())
    assert body["is_anomaly"] == [False, True]
    assert (body["detector"], body["version"], body["generation"]) == ("pump", 1, 1)
    assert answer.headers["cache-control"] == "no-store"


async def test_every_content_type_gives_the_same_scores(pump: Running) -> None:
    """The same matrix as JSON, octet-stream and npy (of any order and width) scores the same."""
    expected = (await pump.http.post(PATH, json={"vectors": X.tolist()})).json()
    sent = [
        ("application/octet-stream", X.astype("<f4").tobytes()),
        ("application/x-npy", npy(X)),
        ("application/x-npy", npy(np.asfortranarray(X))),
        ("application/x-npy", npy(X.astype(">f8"))),
        ("application/x-npy", npy(X.astype(np.int16))),
        ("Application/JSON; charset=utf-8", b'{"vectors": [[0, 0, 0], [50, 50, 50]]}'),
    ]
    for kind, body in sent:
        answer = await pump.http.post(PATH, content=body, headers={"content-type": kind})
        assert answer.json() == expected


async def test_the_binary_answer_has_four_columns_and_headers(pump: Running) -> None:
    """An octet-stream answer has the four columns one after the other, the rest in headers."""
    in_json = (await pump.http.post(PATH, json={"vectors": X.tolist()})).json()
    answer = await pump.http.post(
        PATH, json={"vectors": X.tolist()}, headers={"accept": "application/octet-stream"}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    floats = np.frombuffer(answer.content[:24], "<f4").reshape(3, 2)
    assert floats[0].tolist() == in_json["scores"]
    assert floats[1].tolist() == pytest.approx(in_json["p_values"], rel=1e-6, abs=1e-37)
    assert (floats[1] > 0).all()
    assert floats[2].tolist() == pytest.approx(in_json["severities"], rel=1e-6)
    assert list(answer.content[24:]) == [0, 1]
    assert answer.headers["x-anamnesis-version"] == "1"
    assert answer.headers["x-anamnesis-generation"] == "1"
    assert answer.headers["x-anamnesis-rows"] == "2"
    assert float(answer.headers["x-anamnesis-threshold"]) == in_json["threshold"]
    assert answer.headers["x-anamnesis-calibration"] == in_json["calibration"]


async def test_explain_adds_the_largest_contributions(pump: Running) -> None:
    """`explain=k` adds the k largest contributions, with the value and the expected value."""
    answer = await pump.http.post(PATH + "?explain=2", json={"vectors": [[0, 90, 1]]})
    ((first, second),) = answer.json()["attributions"]
    assert list(first) == ["feature", "contribution", "value", "expected"]
    assert (first["feature"], first["value"]) == ("1", 90.0)
    assert first["contribution"] >= second["contribution"]
    every = await pump.http.post(PATH + "?explain=99", json={"vectors": [[0, 90, 1]]})
    assert len(every.json()["attributions"][0]) == 3


async def test_a_pinned_version_scores_under_the_present_policy(
    pump: Running, versions: Versions
) -> None:
    """`version=n` scores with that version under the present policy; the champion stays."""
    await pump.serve(versions[1])
    now = (await pump.http.post(PATH, json={"vectors": X.tolist()})).json()
    assert (now["version"], now["generation"]) == (2, 2)
    pinned = (await pump.http.post(PATH + "?version=1", json={"vectors": X.tolist()})).json()
    assert (pinned["version"], pinned["generation"]) == (1, 2)
    assert pinned["scores"] == pytest.approx(versions[0].score(X).tolist())
    await pump.make(threshold={"fpr": 0.2})
    moved = (await pump.http.post(PATH + "?version=1", json={"vectors": X.tolist()})).json()
    assert moved["threshold"] < pinned["threshold"]
    assert moved["config_revision"] == 2


async def test_pins_of_unknown_and_pruned_versions_are_refused(
    pump: Running, versions: Versions
) -> None:
    """A pin of an unknown version or detector is 404, of a pruned version 410."""
    answer = await pump.http.post("/v1/detectors/nobody/score?version=1", json={"vectors": []})
    assert (answer.status_code, answer.json()["title"]) == (404, "Unknown detector")
    answer = await pump.http.post(PATH + "?version=7", json={"vectors": X.tolist()})
    assert answer.status_code == 404
    number = await pump.learn(versions[1], good=False)
    keys = Keys("pump").artifacts
    await pump.parts.stores.redis.hdel(keys, str(number))
    answer = await pump.http.post(PATH + f"?version={number}", json={"vectors": X.tolist()})
    assert answer.status_code == 410


async def test_before_the_first_version_the_answer_is_409(api: Running) -> None:
    """Before the first version the answer is 409, with the buffered and the needed vectors."""
    await api.make()
    await api.http.post("/v1/detectors/pump/normal", json={"vectors": [[1, 2, 3]] * 5})
    answer = await api.http.post(PATH, json={"vectors": X.tolist()})
    assert answer.status_code == 409
    body = answer.json()
    assert (body["buffered"], body["needed"]) == (5, 1000)
    assert "5 normal vectors" in body["detail"]


async def test_an_unknown_detector_is_404(api: Running) -> None:
    """An unknown detector is 404, whatever its name looks like."""
    for name in ("nobody", "a" * 65, "-a", "%00", "a%20b", "a%0a", "..."):
        answer = await api.http.post(f"/v1/detectors/{name}/score", json={"vectors": [[1]]})
        assert answer.status_code == 404, name
        assert answer.headers["content-type"] == "application/problem+json"


async def test_several_accept_headers_are_one_list(pump: Running) -> None:
    """The order of several `Accept` headers does not decide, as in one list of the same types."""
    headers = [("accept", "application/json"), ("accept", "application/octet-stream")]
    for fields in (headers, headers[::-1]):
        answer = await pump.http.post(PATH, json={"vectors": X.tolist()}, headers=fields)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html", "application/*;q=0.1"])
async def test_json_is_the_default_answer(pump: Running, accept: str) -> None:
    """The answer is JSON unless the client prefers octet-stream."""
    answer = await pump.http.post(PATH, json={"vectors": X.tolist()}, headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "row", "column"),
    [
        (b'{"vectors": [[1,2,3],[4,NaN,6]]}', 1, 1),
        (b'{"vectors": [[1,2,Infinity]]}', 0, 2),
        (b'{"vectors": [[-Infinity,2,3]]}', 0, 0),
        (b'{"vectors": [[1,1e999,3]]}', 0, 1),
        (b'{"vectors": [[1,2,3],[1,2,1e39]]}', 1, 2),
        (b'{"vectors": [[1,2,-3.5e38]]}', 0, 2),
        (b'{"vectors": [[1,2,1' + b"0" * 400 + b"]]}", 0, 2),
        (b'{"vectors": [[1,2,3],[1,"4171",3]]}', 1, 1),
        (b'{"vectors": [[1,2,"\\ud800"]]}', 0, 2),
        (b'{"vectors": [[1,true,3]]}', 0, 1),
        (b'{"vectors": [[null,2,3]]}', 0, 0),
        (b'{"vectors": [[1,2,[3]]]}', 0, 2),
        (b'{"vectors": [[1,2,{}]]}', 0, 2),
        (b'{"vectors": [[1,2,3],[1,2]]}', 1, 2),
        (b'{"vectors": [[1,2,3],[1,2,3,4]]}', 1, 3),
        (b'{"vectors": [[1,2,3],[]]}', 1, 0),
        (b'{"vectors": [[1,2,3],4]}', 1, None),
        (b'{"vectors": [[1,2]]}', 0, 2),
        (b'{"vectors": [[]]}', 0, 0),
        (b'{"vectors": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", 0, 0),
        (b'{"vectors": []}', None, None),
        (b'{"vectors": [1,2,3]}', 0, None),
        (b'{"vectors": null}', None, None),
        (b'{"vectors": {"a": 1}}', None, None),
        (b"{}", None, None),
        (b"", None, None),
        (b"   ", None, None),
        (b"[[1,2,3]]", None, None),
        (b'"4171"', None, None),
        (b"[" * 100_000, None, None),
        (b'{"a":' * 100_000, None, None),
        (b'{"vectors": [[1,2,3]]', None, None),
        (b'{"vectors": [[1,2,3]]} x', None, None),
        (b'{"vectors": [[1,2,3]], "vectors": [[1,2,3]]}', None, None),
        (b'{"vectors": [[1,2,3]], "extra4171": 1}', None, None),
        (b'\xef\xbb\xbf{"vectors": [[1,2,3]]}', None, None),
        (b'{"vectors": [[1,2,\xff\xfe]]}', 0, 2),
        (b'{"\xff": [[1,2,3]]}', None, None),
        (b"\x00" * 10, None, None),
    ],
)
async def test_bad_vectors_are_refused_with_row_and_column(
    pump: Running, body: bytes, row: int | None, column: int | None
) -> None:
    """A body other than a finite float32 matrix is 422 with row and column, and is not echoed."""
    answer = await pump.http.post(PATH, content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem.get("row"), problem.get("column")) == (row, column)
    assert problem["status"] == 422
    assert {"type", "title", "detail"} <= problem.keys()
    assert "4171" not in answer.text


@pytest.mark.parametrize("field", ["sources", "timestamps", "records", "ids", "context_rows"])
async def test_wrong_fields_beside_the_vectors_are_named(pump: Running, field: str) -> None:
    """A wrong value in a field beside the vectors is refused with the field's name."""
    answer = await pump.http.post(PATH, json={"vectors": X.tolist(), field: [[1], 2]})
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/octet-stream", b""),
        ("application/octet-stream", b"12345"),
        ("application/octet-stream", np.full(3, np.nan, "<f4").tobytes()),
        ("application/x-npy", b"\x93NUMPY\x01\x00\x10\x00{'descr':"),
        ("application/x-npy", npy(X)[:-1]),
        ("application/x-npy", npy(X.astype(complex))),
        ("application/x-npy", npy(X.astype(str))),
        ("application/x-npy", npy(X.astype(bool))),
        ("application/x-npy", npy(X[0])),
        ("application/x-npy", npy(X[:, :2])),
        ("application/x-npy", npy(np.array([[None]], object))),
        ("application/x-npy", npy(np.array([[1e300, 1, 1]]))),
        ("application/x-npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 1000),
    ],
)
async def test_bad_binary_vectors_are_refused(pump: Running, kind: str, body: bytes) -> None:
    """A binary body other than a finite matrix of the detector's dimension is 422."""
    answer = await pump.http.post(PATH, content=body, headers={"content-type": kind})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "kind", ["application/vnd.apache.arrow.file", "text/tsv", "application/x-pickle", "x", ""]
)
async def test_unsupported_content_types_are_415(pump: Running, kind: str) -> None:
    """Another content type is 415, with a list of the supported ones."""
    answer = await pump.http.post(PATH, content=b"x", headers={"content-type": kind})
    assert answer.status_code == 415
    assert answer.json()["supported"] == [
        "application/json", "application/octet-stream", "application/x-npy",
        "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        "explain=abc", "explain=-1", "explain=0", "explain=1.5", "explain=", "version=0",
        "version=999999999999999999999", "version=1&version=1", "version=%F0%9F%98%80",
        "explain=%D9%A3", "version=1e3", "&" * 100 + "version=0",
    ],
)  # fmt: skip
async def test_invalid_query_parameters_are_refused(pump: Running, query: str) -> None:
    """A parameter other than a whole number from 1 on is 422."""
    answer = await pump.http.post(f"{PATH}?{query}", json={"vectors": X.tolist()})
    assert answer.status_code == 422, answer.text


async def test_a_body_over_the_limit_is_413(pump: Running) -> None:
    """A body of 100 MB is 413, with a Content-Length or in chunks."""
    chunk = b"1" * 2**20

    async def chunks() -> object:
        for _ in range(100):
            yield chunk

    answer = await pump.http.post(PATH, content=chunk * 100, headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    came = await pump.http.post(PATH, content=chunks(), headers=JSON)
    assert came.status_code == 413
    assert (await pump.http.post(PATH, json={"vectors": X.tolist()})).status_code == 200


async def test_large_batches_get_the_same_scores_and_errors(pump: Running) -> None:
    """A batch that is scored in a thread gets the same numbers, and errors name the same place."""
    rows = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    answer = await pump.http.post(
        PATH, content=npy(rows), headers={"content-type": "application/x-npy"}
    )
    in_json = await pump.http.post(PATH, json={"vectors": rows.tolist()})
    assert answer.json()["scores"] == in_json.json()["scores"]
    body = in_json.request.content.replace(b"]]}", b"],[1,2,NaN]]}")
    bad = (await pump.http.post(PATH, content=body, headers=JSON)).json()
    assert (bad["row"], bad["column"]) == (20_000, 2)


async def test_extreme_vectors_have_finite_answers(pump: Running) -> None:
    """The largest float32 value is scored, and every number of the answer is finite."""
    answer = await pump.http.post(
        PATH + "?explain=3", json={"vectors": [[3.4e38, -3.4e38, 1e-45], [0, -0.0, 1e38]]}
    )
    assert answer.status_code == 200
    assert "null" not in answer.text
    body = answer.json()
    assert min(body["p_values"]) >= 1e-300
    assert np.isfinite(body["scores"]).all()
    assert np.isfinite(body["severities"]).all()
