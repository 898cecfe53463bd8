"""The recipes of CONTRIBUTING work in a copy of the tree."""

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
KIND = '''
import numpy as np

from models.parts.calibration import Calibration
from models.parts.lineage import NO_EVIDENCE, Lineage, Training
from models.parts.mixture import Mixture
from models.parts.network import Identity
from models.parts.reference import Reference
from models.parts.scaler import Scaler
from models.version.spec import TensorSpec, mixture
from models.version.version import Version


class Distance:
    def __init__(self, centre):
        self.centre = centre

    def __call__(self, x):
        return np.abs(x - self.centre).sum(axis=1).astype(np.float32).astype(np.float64)

    def explain(self, x):
        return np.abs(x - self.centre).astype(np.float64), np.broadcast_to(self.centre, x.shape)


class Ball:
    """Normal is what is near one centre."""

    network, mixture, labels = Identity, Mixture, "ball.labels"

    def faults(self, shape):
        yield "config.kind is not the network's", shape.likelihood == "identity"

    def tensors(self, shape, score, rows):
        return mixture(shape, rows, 1, 10.0) | {"memory.ball.labels": TensorSpec("int64", (1,))}

    def prepare(self, parts, score):
        return {}

    def scorer(self, parts):
        return Distance(parts.latents.means[0])

    def fill(self, parts, drawn):
        return lambda x: np.where(np.isnan(x), parts.latents.means[0], x)

    def codes(self, parts):
        return parts.latents

    def classify(self, parts, x, labels):
        return np.repeat(labels, len(x))


KIND = Ball()


def learn(given, config, weights):
    yield from ()
    past, new = given.previous, given.new
    scaler = past.scaler if past else Scaler.fit(new)
    x, learned = scaler.transform(new), past.lineage.learned if past else 0
    d = x.shape[1]
    centre = x.mean(axis=0)[None]
    return Version(
        config=config, scaler=scaler, network=Identity.of(d),
        latents=Mixture(np.ones(1), centre, np.eye(d, dtype=np.float32)[None]),
        calibration=Calibration(np.sort(Distance(centre)(x))),
        reference=Reference.fit(new), kept=x[:0],
        lineage=Lineage(
            parent=None, strategy=config.strategy, w_prev=0.0, w_new=1.0, n_prev=learned,
            n_new=len(x), learned=learned + len(x), experiences=1, seed=0,
            training=Training(steps=0), bytes_kept=0, evidence=NO_EVIDENCE,
        ),
        memory={"ball.labels": np.array([7])},
    )
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
    responses=openapi.answers(200, "A greeting.", documents.Greeting, {"text": "hello"}),
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
# Prints what the copy can do after all five changes.
REPORT = """
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
ball = train(train(None, X, Config(kind="ball")), X, Config(kind="ball", missing="impute"))
ball = Version.from_bytes(ball.to_bytes())
near = np.abs(ball.scaler.transform(X) - ball.latents.means[0]).sum(axis=1)
gaps = np.where(np.eye(2, dtype=bool), np.nan, X[:2])
after = train(ball, X, config)
registry = CollectorRegistry()
Metrics(registry).greeted("pump")
described = create_app(Settings(redis_url="redis://127.0.0.1:1")).openapi()
print(json.dumps({
    "strategy": back.lineage.strategy,
    "score": float(np.abs(back.score(X) - np.square(x).sum(axis=1)).max()),
    "explained": len(back.explain(X[:1], 2)[0]),
    "kind": ball.config.kind,
    "distance": float(np.abs(ball.score(X) - near).max()),
    "gaps": bool(np.isfinite(ball.score(gaps)).all()),
    "classes": ball.classify(X[:2]).tolist(),
    "columns": len(ball.explain(X[:1], 2)[0]),
    "drawn": len(ball.sample(3, seed=0)),
    "after": after.kind,
    "route": "/v1/greeting" in described["paths"],
    "answer": described["components"]["schemas"].get("Greeting", {}).get("required"),
    "metric": "anamnesis_greetings_total" in generate_latest(registry).decode(),
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Follow the five recipes in a copy of the tree; return what the copy reports."""
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
        "    return Scorer(name, network,",
        '    if name == "length":\n        return Length()\n    return Scorer(name, network,',
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
    write("models/kinds/ball.py", KIND)
    change(
        "models/kind_table.py",
        "KINDS = {",
        'KINDS = {\n    "ball": KindModule("models.kinds.ball", "models.kinds.ball", fixed=True),',
    )
    write("service/api/routes/greeting.py", ROUTE)
    write("service/api/documents.py", (copy / "service/api/documents.py").read_text() + ANSWER)
    change(
        "service/api/app.py",
        "    service,\n)\n\n_FIRST",
        "    service,\n    greeting,\n)\n\n_FIRST",
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
        "    def scored(self",
        "    def greeted(self, name):\n"
        "        self._greetings.labels(name).inc()\n\n"
        "    def scored(self",
    )
    write("report.py", REPORT)
    done = subprocess.run(
        [sys.executable, "report.py"], cwd=copy, capture_output=True, text=True, timeout=600,
        env={"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_score_is_added(report: dict) -> None:
    """A version that is trained with the new score scores, explains, and is saved with it."""
    assert report["score"] < 1e-3
    assert report["explained"] == 2


def test_a_strategy_is_added(report: dict) -> None:
    """A retraining uses the new strategy, and the lineage names it."""
    assert report["strategy"] == "twice"


def test_a_kind_is_added(report: dict) -> None:
    """The new kind learns twice and does all that a version does; a VAE learns its draws."""
    assert report["kind"] == "ball"
    assert report["distance"] < 1e-3
    assert report["gaps"]
    assert report["classes"] == [7, 7]
    assert (report["columns"], report["drawn"]) == (2, 3)
    assert report["after"] == "vae"


def test_a_route_is_added(report: dict) -> None:
    """The new route is served and documented, with its answer."""
    assert report["route"]
    assert report["answer"] == ["text"]


def test_a_metric_is_added(report: dict) -> None:
    """The new metric is on the scraped page."""
    assert report["metric"]
