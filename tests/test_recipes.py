"""The recipes of CONTRIBUTING, followed in a copy of the tree."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCORE = '''
import numpy as np


class Length:
    """The squared length of a scaled vector."""

    def __call__(self, x):
        return np.square(x).sum(axis=1).astype(np.float32).astype(np.float64)

    def explain(self, x):
        return np.square(x).astype(np.float64), np.zeros_like(x)
'''
STRATEGY = '''

def twice(previous: Version | None, config: Config) -> Past:
    """Replay, under another name."""
    return replay(previous, config)


PASTS: '''
ROUTE = '''
from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.guard import needs
from service.api.responses import answer
from service.domain.scope import Scope

router = APIRouter(prefix="/v1", tags=["process"])


@router.get(
    "/greeting",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "A greeting.", {"text": "hello"}, documents.Greeting),
)
async def greeting(request: Request) -> Response:
    """Greet whoever asks."""
    return answer({"text": "hello"})
'''
ANSWER = '''

class Greeting(msgspec.Struct):
    """What a greeting says."""

    text: str
'''
# What a copy with all four says of itself.
ASKED = """
import json
import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from models import Config, Model, Version, train
from service.api.app import create_app
from service.settings import Settings
from service.telemetry.metrics import Metrics

X = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
config = Config(score="length", strategy="twice", model=Model(epochs=1, hidden=(4,), latent=1))
version = train(train(None, X, config), X, config)
back = Version.from_bytes(version.to_bytes())
x = back.scaler.transform(X)
registry = CollectorRegistry()
Metrics(registry).greeted("pump")
described = create_app(Settings(redis_url="redis://127.0.0.1:1")).openapi()
print(json.dumps({
    "strategy": back.lineage.strategy,
    "score": float(np.abs(back.score(X) - np.square(x).sum(axis=1)).max()),
    "explained": len(back.explain(X[:1], 2)[0]),
    "route": "/v1/greeting" in described["paths"],
    "answer": described["components"]["schemas"].get("Greeting", {}).get("required"),
    "metric": "anamnesis_greetings_total" in generate_latest(registry).decode(),
}))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Follow the four recipes in a copy of the tree and return what it says of itself."""
    copy = tmp_path_factory.mktemp("copy")
    for package in ("models", "service"):
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "static")
        )
    (copy / "service/api/page/static").mkdir()

    def write(path: str, text: str) -> None:
        (copy / path).write_text(text)

    def change(path: str, old: str, new: str) -> None:
        before = (copy / path).read_text()
        assert before.count(old) == 1, f"{path} has no single place for it: {old}"
        write(path, before.replace(old, new))

    write("models/scores/length.py", SCORE)
    change("models/config.py", 'SCORES = ("auto",', 'SCORES = ("length", "auto",')
    change(
        "models/scores/by_name.py",
        "    return Scorer(kind, network,",
        '    if kind == "length":\n        return Length()\n    return Scorer(kind, network,',
    )
    change(
        "models/scores/by_name.py",
        "from models.scores.neighbours",
        "from models.scores.length import Length\nfrom models.scores.neighbours",
    )
    change(
        "models/config.py",
        'STRATEGIES = (\n    "replay",',
        'STRATEGIES = (\n    "twice", "replay",',
    )
    change("models/strategies/past.py", "\n\nPASTS: ", STRATEGY)
    change(
        "models/strategies/past.py",
        '    "replay": replay,',
        '    "replay": replay,\n    "twice": twice,',
    )
    write("service/api/routes/greeting.py", ROUTE)
    write("service/api/documents.py", (copy / "service/api/documents.py").read_text() + ANSWER)
    change(
        "service/api/app.py",
        "        service,\n    ):",
        "        service,\n        greeting,\n    ):",
    )
    change(
        "service/api/app.py",
        "from service.api.routes import (",
        "from service.api.routes import (\n    greeting,",
    )
    change(
        "service/telemetry/metrics.py",
        '        self._scored = counter("vectors_scored", "Vectors scored.")',
        '        self._scored = counter("vectors_scored", "Vectors scored.")\n'
        '        self._greetings = counter("greetings", "Greetings.")',
    )
    change(
        "service/telemetry/metrics.py",
        "    def scored(\n",
        "    def greeted(self, name):\n"
        "        self._greetings.labels(name).inc()\n\n"
        "    def scored(\n",
    )
    write("asked.py", ASKED)
    done = subprocess.run(
        [sys.executable, "asked.py"], cwd=copy, capture_output=True, text=True, timeout=600,
        env={"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_score_is_added(said: dict) -> None:
    """A version trained with it scores and explains by it, and survives its artifact."""
    assert said["score"] < 1e-3
    assert said["explained"] == 2


def test_a_strategy_is_added(said: dict) -> None:
    """A retraining learns by it, and the lineage names it."""
    assert said["strategy"] == "twice"


def test_a_route_is_added(said: dict) -> None:
    """It is served and described, its answer too."""
    assert said["route"]
    assert said["answer"] == ["text"]


def test_a_metric_is_added(said: dict) -> None:
    """It is on the page that Prometheus scrapes."""
    assert said["metric"]
