"""The Open Inference Protocol below `/v2`, with an outside client and byte by byte."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest

from tests.contract.running import Running, running
from tests.service.trained import Versions

triton = pytest.importorskip("tritonclient.http")

pytestmark = pytest.mark.anyio
T = TypeVar("T")
X = np.array([[0.1, -0.2, 0.3], [40.0, 40.0, 40.0]], np.float32)
MODEL = "/v2/models/pump"
LENGTH = "Inference-Header-Content-Length"
OUTPUTS = ("score", "p_value", "severity", "is_anomaly")


def json_request(**changed: Any) -> dict[str, Any]:
    """Return a JSON request for the rows of X, with `changed` fields in its tensor."""
    tensor = {"name": "vectors", "shape": [2, 3], "datatype": "FP32", "data": X.tolist()}
    return {"inputs": [{k: v for k, v in (tensor | changed).items() if v is not None}]}


def binary_request(rows: np.ndarray, datatype: str = "FP32", **request: Any) -> tuple[bytes, dict]:
    """Return body and headers of a request with its tensor in binary."""
    raw = rows.tobytes()
    parameters = {"binary_data_size": len(raw)}
    shape = list(rows.shape)
    tensor = json_request(data=None, shape=shape, datatype=datatype, parameters=parameters)
    head = json.dumps(tensor | request).encode()
    return head + raw, {LENGTH: str(len(head)), "content-type": "application/octet-stream"}


async def ask_tritonclient(api: Running, work: Callable[[Any], T]) -> T:
    """Return the result of NVIDIA's client, which blocks and therefore runs in a thread."""

    def connect_and_work() -> T:
        with triton.InferenceServerClient(f"127.0.0.1:{api.port}") as client:
            return work(client)

    return await asyncio.to_thread(connect_and_work)


async def answer_of_v1(api: Running, X: np.ndarray) -> dict[str, Any]:
    """Return the answer of `/v1` to the same rows."""
    answer = await api.http.post("/v1/detectors/pump/score", json={"vectors": X.tolist()})
    assert answer.status_code == 200
    return answer.json()


def assert_equal_columns(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless the four columns are the same numbers."""
    columns = ("scores", "p_values", "severities", "is_anomaly")
    for name, column in zip(OUTPUTS, columns, strict=True):
        assert np.array_equal(np.asarray(actual[name]), np.asarray(expected[column])), name


@pytest.mark.parametrize("binary", [True, False])
async def test_tritonclient_gets_the_scores_of_v1(pump: Running, binary: bool):
    """Tritonclient gets the numbers of `/v1`, in binary and in JSON."""

    def work(client: Any) -> Any:
        tensor = triton.InferInput("vectors", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
        return client.infer("pump", [tensor], outputs=wanted, request_id="r-1")

    result = await ask_tritonclient(pump, work)
    assert_equal_columns(
        {name: result.as_numpy(name) for name in OUTPUTS}, await answer_of_v1(pump, X)
    )
    response = result.get_response()
    fields = (response["model_name"], response["model_version"], response["id"])
    assert fields == ("pump", "1", "r-1")
    assert result.as_numpy("is_anomaly").dtype == bool


async def test_tritonclient_gets_all_outputs_if_it_names_none(pump: Running):
    """If no outputs are named, tritonclient gets all four in binary; a version can be pinned."""

    def work(client: Any) -> Any:
        tensor = triton.InferInput("vectors", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)
        return client.infer("pump", [tensor], model_version="1")

    result = await ask_tritonclient(pump, work)
    assert_equal_columns(
        {name: result.as_numpy(name) for name in OUTPUTS}, await answer_of_v1(pump, X)
    )


async def test_tritonclient_reads_server_model_and_repository(pump: Running):
    """Tritonclient gets answers about server, model and repository."""
    await pump.make("idle")

    def work(client: Any) -> dict[str, Any]:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "server": client.get_server_metadata(),
            "model": client.get_model_metadata("pump"),
            "version": client.get_model_metadata("pump", "1"),
            "loaded": [client.is_model_ready("pump"), client.is_model_ready("pump", "1")],
            "absent": [client.is_model_ready("idle"), client.is_model_ready("nobody")],
            "models": client.get_model_repository_index(),
        }

    answers = await ask_tritonclient(pump, work)
    assert answers["live"]
    assert answers["ready"]
    assert answers["server"]["name"] == "anamnesis"
    assert "binary_tensor_data" in answers["server"]["extensions"]
    assert answers["loaded"] == [True, True]
    assert answers["absent"] == [False, False]
    assert answers["model"]["inputs"] == [{"name": "vectors", "datatype": "FP32", "shape": [-1, 3]}]
    assert [output["name"] for output in answers["model"]["outputs"]] == list(OUTPUTS)
    assert answers["model"] == answers["version"]
    assert {model["name"]: model["state"] for model in answers["models"]} == {
        "idle": "UNAVAILABLE",
        "pump": "READY",
    }


async def test_tritonclient_raises_the_error_of_the_service(pump: Running):
    """Tritonclient raises an error with the status and the service's sentence."""

    def work(client: Any) -> str:
        tensor = triton.InferInput("vectors", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 2), np.float32))
        with pytest.raises(triton.InferenceServerException) as error:
            client.infer("pump", [tensor])
        return str(error.value)

    assert await ask_tritonclient(pump, work) == (
        "[422] The vector has 2 numbers; the detector takes 3. (row 0, column 2)"
    )


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP64", "<f8"), ("FP16", "<f2"), ("INT32", "<i4"), ("UINT8", "u1")]
)
async def test_tensors_of_other_numeric_types_are_scored(pump: Running, datatype: str, dtype: str):
    """Tensors of other numeric types score like the same numbers in float32."""
    rows = np.array([[1, 2, 3]], dtype)
    body, headers = binary_request(rows, datatype)
    answer = await pump.http.post(f"{MODEL}/infer", content=body, headers=headers)
    columns = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert_equal_columns(columns, await answer_of_v1(pump, rows.astype(np.float32)))


async def test_nested_and_flat_lists_score_the_same(pump: Running):
    """Rows may be nested lists or one flat list."""
    nested = await pump.http.post(f"{MODEL}/infer", json=json_request())
    flat = await pump.http.post(f"{MODEL}/infer", json=json_request(data=X.ravel().tolist()))
    assert nested.json() == flat.json()
    assert nested.json()["parameters"]["generation"] == 1


async def test_only_requested_outputs_are_answered(pump: Running):
    """Only the requested outputs are answered, each in the requested form."""
    wanted = [{"name": "is_anomaly", "parameters": {"binary_data": True}}, {"name": "score"}]
    answer = await pump.http.post(f"{MODEL}/infer", json=json_request() | {"outputs": wanted})
    size = int(answer.headers[LENGTH])
    head = json.loads(answer.content[:size])
    assert [output["name"] for output in head["outputs"]] == ["is_anomaly", "score"]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 2}
    assert answer.content[size:] == b"\x00\x01"
    assert head["outputs"][1]["data"] == (await answer_of_v1(pump, X))["scores"]


async def test_a_large_tensor_is_judged_outside_the_event_loop(pump: Running):
    """A tensor of a hundred thousand rows is answered correctly, outside the event loop."""
    rows = np.tile(X, (50_000, 1))
    body, headers = binary_request(rows)
    answer = await pump.http.post(f"{MODEL}/infer", content=body, headers=headers)
    (score,) = [output["data"] for output in answer.json()["outputs"] if output["name"] == "score"]
    assert score[:2] == (await answer_of_v1(pump, X))["scores"]
    assert len(score) == 100_000


async def test_rows_scored_by_the_protocol_are_counted(pump: Running):
    """Rows that are scored by the protocol count in the metrics like all others."""
    await pump.http.post(f"{MODEL}/infer", json=json_request())
    page = (await pump.http.get("/metrics")).text
    assert 'anamnesis_vectors_scored_total{detector="pump"} 2.0' in page


BAD: dict[str, tuple[int, Any]] = {
    "not JSON": (400, b"{"),
    "not an object": (400, b"[]"),
    "no inputs": (400, {}),
    "two inputs": (400, {"inputs": json_request()["inputs"] * 2}),
    "another name": (400, json_request(name="x")),
    "a type of text": (400, json_request(datatype="BYTES")),
    "one dimension": (400, json_request(shape=[6])),
    "three dimensions": (400, json_request(shape=[1, 2, 3])),
    "not a number": (400, b'{"inputs": [{"name": "vectors", "data": [NaN, 1, 2]}]}'),
    "a negative shape": (400, json_request(shape=[-1, 3])),
    "a huge shape": (400, json_request(shape=[2**31 - 1, 2**31 - 1], data=[1])),
    "another shape": (400, json_request(shape=[3, 3])),
    "no data": (400, json_request(data=None)),
    "words": (422, json_request(data=[["a", 1, 2], [1, 2, 3]])),
    "flat words": (400, json_request(data=["a", 1, 2, 1, 2, 3])),
    "booleans": (400, json_request(data=[True] * 6)),
    "a null": (422, json_request(data=[[None, 1, 2], [1, 2, 3]])),
    "a flat null": (400, json_request(data=[None] * 6)),
    "ragged rows": (422, json_request(data=[[1, 2, 3], [1, 2]])),
    "beyond float32": (422, json_request(data=[[1, 2, 3], [1, 2, 1e39]])),
    "no rows": (422, json_request(shape=[0, 3], data=[])),
    "an unknown output": (400, json_request() | {"outputs": [{"name": "x"}]}),
    "no outputs": (400, json_request() | {"outputs": []}),
    "bytes without a length": (400, json_request(data=None, parameters={"binary_data_size": 24})),
}


@pytest.mark.parametrize("fault", BAD)
async def test_bad_requests_get_errors_of_the_protocol(pump: Running, fault: str):
    """An error is one sentence under `error`, and never a 5xx."""
    status, body = BAD[fault]
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = await pump.http.post(f"{MODEL}/infer", **sent)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("length", ["", "x", "-1", "99999", "٣", "1e3", "9" * 20])
async def test_an_invalid_json_length_is_refused(pump: Running, length: str):
    """The header with the JSON length must be a length inside the body."""
    headers = {LENGTH.encode(): length.encode()}
    body = json.dumps(json_request()).encode()
    answer = await pump.http.post(f"{MODEL}/infer", content=body, headers=headers)
    assert answer.status_code == 400


async def test_binary_data_of_another_size_than_the_shape_is_refused(pump: Running):
    """Binary data must have the size that shape, datatype and parameter give."""
    body, headers = binary_request(X)
    answer = await pump.http.post(f"{MODEL}/infer", content=body + b"x", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("The shape and datatype of `vectors` ask for 24")


async def test_unknown_models_and_paths_get_errors_of_the_protocol(pump: Running):
    """Unknown models, versions, paths and methods have the protocol's errors, too."""
    for method, path, status in (
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/versions/1", 404),
        ("GET", f"{MODEL}/versions/9", 404),
        ("POST", f"{MODEL}/versions/x/infer", 404),
        ("GET", f"{MODEL}/config", 404),
        ("DELETE", MODEL, 405),
        ("POST", "/v2/repository/models/pump/load", 404),
    ):
        answer = await pump.http.request(method, path, json=json_request())
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
    await pump.make("idle")
    answer = await pump.http.post("/v2/models/idle/infer", json=json_request())
    assert answer.status_code == 409
    assert "0 normal vectors are buffered" in answer.json()["error"]


async def test_another_type_of_body_is_refused(pump: Running):
    """The body of a form is refused."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await pump.http.post(f"{MODEL}/infer", content=b"{}", headers=headers)
    assert (answer.status_code, list(answer.json())) == (415, ["error"])


async def test_keys_decide_what_a_client_sees(store_url: str, versions: Versions):
    """A model needs a key with the scope `score` for it; other models look absent."""
    async with running(store_url, poll_seconds=0.2) as api:
        await api.make()
        await api.make("other")
        await api.serve(versions[0])
        first = await api.http.post("/v1/keys", json={"name": "admin", "scopes": ["admin"]})
        admin = {"authorization": f"Bearer {first.json()['key']}"}
        made = await api.http.post(
            "/v1/keys",
            json={"name": "scorer", "scopes": ["score"], "detectors": ["pump"]},
            headers=admin,
        )
        assert made.status_code == 201, made.text
        key = {"authorization": f"Bearer {made.json()['key']}"}
        refused = await api.http.post(f"{MODEL}/infer", json=json_request())
        assert (refused.status_code, list(refused.json())) == (401, ["error"])
        allowed = await api.http.post(f"{MODEL}/infer", json=json_request(), headers=key)
        assert allowed.status_code == 200
        hidden = await api.http.get("/v2/models/other", headers=key)
        assert hidden.status_code == 404
        listed = await api.http.post("/v2/repository/index", headers=key)
        assert [model["name"] for model in listed.json()] == ["pump"]
        assert (await api.http.get("/v2/health/live")).status_code == 200


async def test_missing_values_are_accepted_if_the_config_imputes(api: Running, versions: Versions):
    """Null and NaN stand for missing values if the config imputes."""
    await api.make(missing="impute")
    await api.serve(versions[0])
    rows = np.array([[np.nan, 0.2, 0.3]], np.float32)
    body, headers = binary_request(rows)
    in_bytes = await api.http.post(f"{MODEL}/infer", content=body, headers=headers)
    data = [[None, 0.2, 0.3]]
    nested = await api.http.post(f"{MODEL}/infer", json=json_request(shape=[1, 3], data=data))
    flat = await api.http.post(f"{MODEL}/infer", json=json_request(shape=[1, 3], data=data[0]))
    answers: list[httpx.Response] = [in_bytes, nested, flat]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert in_bytes.json()["outputs"] == nested.json()["outputs"] == flat.json()["outputs"]


@pytest.mark.parametrize("shape", [[6], [1, 2, 3]])
async def test_an_error_names_the_shape(pump: Running, shape: list[int]):
    """A tensor of one or three dimensions is refused with the shape that the model takes."""
    answer = await pump.http.post(f"{MODEL}/infer", json=json_request(shape=shape))
    assert answer.json()["error"] == "The shape of `vectors` must be [rows, features]."


async def test_nulls_stand_for_fields_that_are_left_out(pump: Running):
    """Clients that write every field send null for those without a value."""
    request = json_request(parameters=None)
    request["inputs"][0]["parameters"] = None
    nulls = {"id": None, "parameters": None, "outputs": None}
    answer = await pump.http.post(f"{MODEL}/infer", json=request | nulls)
    assert answer.status_code == 200, answer.text
    wanted = {"outputs": [{"name": "score", "parameters": None}]}
    answer = await pump.http.post(f"{MODEL}/infer", json=request | nulls | wanted)
    assert [output["name"] for output in answer.json()["outputs"]] == ["score"]


async def test_many_tensors_are_refused_before_they_are_decoded(pump: Running) -> None:
    """A body with a million tensors is refused before it is decoded."""
    tensor = b'{"name": "vectors", "shape": [1, 3], "datatype": "FP32", "data": [0, 0, 0]},'
    headers = {"content-type": "application/json"}
    body = b'{"inputs": [' + tensor * 17 + b"no JSON"
    answer = await pump.http.post("/v2/models/pump/infer", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"][:24]) == (400, "Send exactly one input t")
    body = b'{"ready": "' + b" " * 300_000 + b'"}'
    answer = await pump.http.post("/v2/repository/index", content=body, headers=headers)
    assert answer.status_code == 413
