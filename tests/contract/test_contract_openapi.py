"""The OpenAPI document matches the service's answers, and generated clients work."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from service.api.app import create_app
from service.scoring import vectors
from service.scoring.request_rows import FIELDS, NORMAL_FIELDS
from service.settings import Settings
from service.store.connection import connect
from tests.contract.running import Running, running
from tests.service.trained import Versions

ROOT = Path(__file__).parents[2]
DOCUMENT = create_app(Settings(redis_url="unix:///nowhere")).openapi()
X = [[0.1, 0.2, 0.3], [40.0, 40.0, 40.0]]


def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return a function that checks a document against a component schema."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


def operations() -> dict[str, dict[str, Any]]:
    """Return every operation by its id."""
    return {
        operation["operationId"]: operation
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    }


def test_the_document_is_made_once():
    """A request for the document, which needs no key, does not make it anew."""
    app = create_app(Settings(redis_url="unix:///nowhere"))
    assert app.openapi() is app.openapi()


def test_no_problem_is_documented_under_v2():
    """All errors under `/v2` have the protocol's form, those of access too."""
    paths = [path for name, path in DOCUMENT["paths"].items() if name.startswith("/v2")]
    of_v2 = [operation for path in paths for operation in path.values()]
    answers = [answer for operation in of_v2 for answer in operation["responses"].values()]
    assert answers
    assert not any("application/problem+json" in answer.get("content", {}) for answer in answers)


def test_operation_ids_are_short_and_unique():
    """Every operation has a short, unique id, which names the function of a generated client."""
    ids = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]
    assert len(ids) == len(set(ids))
    assert max(map(len, ids)) <= 24


@pytest.mark.parametrize("name", operations())
def test_every_json_answer_has_a_type(name: str):
    """Every successful answer names a component schema, and its example fits the schema."""
    for status, response in operations()[name]["responses"].items():
        content = response.get("content", {})
        for media, media_type in content.items():
            if "json" not in media:
                continue
            schema = media_type["schema"].get("items", media_type["schema"])
            named = schema["$ref"].rpartition("/")[2]
            examples = (
                media_type["example"]
                if "items" in media_type["schema"]
                else [media_type["example"]]
            )
            for example in examples:
                errors = [error.message for error in validator(named).iter_errors(example)]
                assert not errors, (name, status)


@pytest.mark.parametrize("name", operations())
def test_every_json_body_has_a_type(name: str):
    """A JSON body of a request names a component schema, and its example fits the schema."""
    body = operations()[name].get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and name != "patch":  # the changes may be part of a config
        named = body["schema"]["$ref"].rpartition("/")[2]
        assert not [error.message for error in validator(named).iter_errors(body["example"])]


def test_bodies_with_rows_document_every_field_and_type():
    """The document has every field and media type of rows, and every parameter of the query."""
    for name, fields in (("score", FIELDS), ("normal", NORMAL_FIELDS)):
        operation = operations()[name]
        content = operation["requestBody"]["content"]
        assert set(content) == set(vectors.MEDIA_TYPES)
        body = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert set(DOCUMENT["components"]["schemas"][body]["properties"]) == set(fields)
        parameters = {parameter["name"] for parameter in operation["parameters"]}
        assert {"time", "source", "id", "drop", "extra"} <= parameters
        assert ("record" in parameters) == (name == "score")


def test_only_routes_that_store_document_a_full_buffer():
    """Only routes that store something document that the buffer is full."""
    full = {
        name
        for name, operation in operations().items()
        if "buffer-full" in json.dumps(operation["responses"].get("429", {}))
    }
    assert full == {"normal", "feedback", "create_incident"}


def test_the_committed_document_equals_the_served_one():
    """docs/openapi.json equals the document that a process of this release serves."""
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == DOCUMENT


@pytest.fixture
async def detector_with_all_data(api: Running, versions: Versions) -> Running:
    """Serve a detector with a version, a rejected one, an event, labels and buffered vectors."""
    await api.make()
    await api.serve(versions[0])
    await api.learn(versions[1], good=False)
    await api.http.post("/v1/detectors/pump/score", json={"vectors": X})
    await api.http.post("/v1/detectors/pump/normal", json={"vectors": X})
    await api.parts.reporter.flush()
    return api


ASKED: tuple[tuple[str, str, str, Any], ...] = (
    ("Health", "GET", "/healthz", None),
    ("Health", "GET", "/readyz", None),
    ("Detectors", "GET", "/v1/detectors", None),
    ("DetectorStatus", "GET", "/v1/detectors/pump", None),
    ("DetectorConfig", "PUT", "/v1/detectors/pump", {"threshold": {"fpr": 0.02}}),
    ("ScoreAnswer", "POST", "/v1/detectors/pump/score?explain=2", {"vectors": X}),
    ("NormalAnswer", "POST", "/v1/detectors/pump/normal?vouch=true", {"vectors": X * 20}),
    ("RetrainAnswer", "POST", "/v1/detectors/pump/retrain", None),
    ("Versions", "GET", "/v1/detectors/pump/versions", None),
    ("VersionRecord", "GET", "/v1/detectors/pump/versions/1", None),
    ("VersionRecord", "GET", "/v1/detectors/pump/versions/2", None),
    ("Events", "GET", "/v1/detectors/pump/events", None),
    ("Drift", "GET", "/v1/detectors/pump/drift", None),
    ("Quarantine", "GET", "/v1/detectors/pump/quarantine", None),
    ("FeedbackAnswer", "POST", "/v1/detectors/pump/feedback",
     {"labels": [{"label": "anomaly", "vector": X[1]}]}),
    ("Labels", "GET", "/v1/detectors/pump/labels", None),
    ("Incidents", "GET", "/v1/detectors/pump/incidents", None),
    ("History", "GET", "/v1/detectors/pump/history", None),
    ("Generations", "GET", "/v1/detectors/pump/generations", None),
    ("MuteAnswer", "POST", "/v1/detectors/pump/mute", {"seconds": 1.0, "why": "a test"}),
    ("Attention", "GET", "/v1/attention", None),
    ("ServiceAnswer", "GET", "/v1/service", None),
    ("Work", "GET", "/v1/work", None),
    ("AuditPage", "GET", "/v1/detectors/pump/audit", None),
    ("Promoted", "PUT", "/v1/detectors/pump/champion", {"version": 1}),
    ("InferenceServer", "GET", "/v2", None),
    ("InferenceModel", "GET", "/v2/models/pump", None),
    ("InferenceAnswer", "POST", "/v2/models/pump/infer",
     {"inputs": [{"name": "vectors", "shape": [2, 3], "datatype": "FP32", "data": X}]}),
    ("InferenceError", "GET", "/v2/models/nobody", None),
    ("Problem", "GET", "/v1/detectors/nobody", None),
    ("Problem", "POST", "/v1/detectors/pump/score", {"vectors": [[1, 2]]}),
    ("ApiKeys", "GET", "/v1/keys", None),
    ("ApiKey", "POST", "/v1/keys", {"name": "a", "scopes": ["admin"]}),
)  # fmt: skip


@pytest.mark.anyio
async def test_answers_fit_their_component_schemas(detector_with_all_data: Running):
    """The answers of a running service fit the component schemas of their routes."""
    for name, method, path, body in ASKED:
        answer = await detector_with_all_data.http.request(method, path, json=body)
        expected = {"Problem": {404, 422}, "InferenceError": {404}}.get(name, {200, 201, 202})
        assert answer.status_code in expected, (path, answer.text)
        errors = [error.message for error in validator(name).iter_errors(answer.json())]
        assert not errors, (name, path, answer.text)


def tool(name: str) -> str:
    """Return the path of a generator, from this environment or from its own."""
    beside = (Path(sys.executable).parent, ROOT / ".venv-clients" / "bin")
    for folder in beside:
        path = shutil.which(name, path=str(folder))
        if path is not None:
            return path
    pytest.skip(f"{name} is not installed: `make client-tools`")


def generate(*command: str, cwd: Path) -> None:
    """Run a generator; its warnings do not fail the test."""
    done = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.anyio
async def test_a_generated_client_reads_a_status(
    detector_with_all_data: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """openapi-python-client generates a typed client, which can read a status."""
    (tmp_path / "openapi.json").write_text(json.dumps(DOCUMENT))
    command = (tool("openapi-python-client"), "generate", "--path", "openapi.json", "--meta")
    generate(*command, "none", "--output-path", "generated", cwd=tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from generated import Client  # type: ignore[import-not-found]
    from generated.api.detectors import get_detector, patch
    from generated.api.vectors import score
    from generated.models import (
        DetectorConfig,
        DetectorStatus,
        PatchJsonBody,
        ScoreAnswer,
        ScoreBody,
    )

    base = str(detector_with_all_data.http.base_url)
    client = Client(base_url=base, httpx_args={"trust_env": False})
    status = await get_detector.asyncio("pump", client=client)
    assert isinstance(status, DetectorStatus)
    assert (status.champion, status.config.threshold.to_dict()) == (1, {"fpr": 0.01})
    body = ScoreBody(vectors=X)
    answer = await score.asyncio("pump", client=client, body=body, record=False)
    assert isinstance(answer, ScoreAnswer)
    assert answer.is_anomaly == [False, True]
    body.timestamps, body.sources = [0.0, "1970-01-01T00:00:01Z"], ["press", "press"]
    assert isinstance(await score.asyncio("pump", client=client, body=body), ScoreAnswer)
    changes = PatchJsonBody.from_dict({"retrain": {"paused": True}})
    config = await patch.asyncio("pump", client=client, body=changes)
    assert isinstance(config, DetectorConfig)
    assert (config.retrain.paused, config.retrain.min_vectors) == (True, 1000)
    await client.get_async_httpx_client().aclose()


@pytest.mark.anyio
async def test_generated_pydantic_models_accept_answers(
    detector_with_all_data: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """datamodel-code-generator generates pydantic models, which accept a status and an answer."""
    (tmp_path / "openapi.json").write_text(json.dumps(DOCUMENT))
    command = (tool("datamodel-codegen"), "--input", "openapi.json", "--input-file-type", "openapi")
    kind = ("--output-model-type", "pydantic_v2.BaseModel", "--output", "generated_types.py")
    generate(*command, *kind, cwd=tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import generated_types  # type: ignore[import-not-found]

    status = (await detector_with_all_data.http.get("/v1/detectors/pump")).json()
    assert generated_types.DetectorStatus.model_validate(status).champion == 1
    answer: httpx.Response = await detector_with_all_data.http.post(
        "/v1/detectors/pump/score", json={"vectors": X}
    )
    read = generated_types.ScoreAnswer.model_validate(answer.json())
    assert np.isfinite(read.scores).all()


@pytest.mark.anyio
@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
async def test_a_store_that_takes_no_writes_answers_all_reads(
    debian_process: Any, versions: Versions, setting: str
) -> None:
    """Every documented read is answered while the store is out of memory or lacks a replica.

    The server is Redis, which refuses a transaction of reads while it is out of memory.
    """
    url = debian_process.url
    async with running(url, poll_seconds=0.1) as api, await connect(url) as redis:
        await redis.flushall()
        await api.make()
        await api.serve(versions[0])
        paths = {
            path.format(name="pump", number=1, key="x", entry="x", incident="x", event="x")
            for path, operations in DOCUMENT["paths"].items()
            if "get" in operations and not path.endswith("/stream")
        }
        await redis.config_set(setting, "1")
        try:
            answers = {path: await api.http.get(path) for path in sorted(paths)}
            await api.parts.stores.api_keys.state()
            await api.parts.stores.registry.prune("pump")
        finally:
            await redis.config_set(setting, "0")
        assert not {path: answer.text for path, answer in answers.items() if answer.is_server_error}
