"""The servers that the serving benchmarks compare, each in its own processes, and the load.

The service is complete: a store that syncs every write, and an API process with metrics, drift, all
checks and an API key. The peers are a bare ASGI application that answers a constant (the limit of
the server itself), a simple first implementation (FastAPI, pydantic, torch), and, if its Python is
named, MLServer.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 32
NAMES = tuple(f"f{i}" for i in range(DIMENSION))
SCORE = "/v1/detectors/bench/score"
JSON, OCTETS = "application/json", "application/octet-stream"
KEY = "benchmark-key-that-everybody-may-know"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

BARE = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", b"200")]})
    await send({"type": "http.response.body", "body": b"x" * 200})
"""
NAIVE = """
import torch
from fastapi import FastAPI
from pydantic import BaseModel

torch.set_num_threads(1)
def mlp(*sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
encoder, decoder = mlp(32, 64, 32, 16), mlp(8, 32, 64, 32)
app = FastAPI()

class Vectors(BaseModel):
    vectors: list[list[float]]

class Scores(BaseModel):
    scores: list[float]
    is_anomaly: list[bool]

@app.post("/v1/detectors/bench/score")
async def score(body: Vectors) -> Scores:
    with torch.inference_mode():
        x = torch.tensor(body.vectors)
        mean, log_variance = encoder(x).chunk(2, dim=1)
        residual = x - decoder(mean)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        scores = 0.5 * (residual**2).sum(1) + kl
    return Scores(scores=scores.tolist(), is_anomaly=(scores > 50).tolist())
"""
# The same network in NumPy, which is faster than torch here.
MLSERVER = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

def mlp(*sizes):
    draw = np.random.default_rng(0).normal
    return [(draw(size=s).astype("f4"), np.zeros(s[1], "f4")) for s in zip(sizes, sizes[1:])]

def forward(layers, x):
    for i, (weight, bias) in enumerate(layers):
        x = (np.maximum(x, 0) if i else x) @ weight + bias
    return x

class Vae(MLModel):
    async def load(self):
        self.encoder, self.decoder = mlp(32, 64, 32, 16), mlp(8, 32, 64, 32)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0]).astype("f4")
        encoded = forward(self.encoder, x)
        mean, log_variance = encoded[:, :8], encoded[:, 8:]
        residual = x - forward(self.decoder, mean)
        kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
        scores = 0.5 * (residual**2).sum(1) + kl
        output = NumpyCodec.encode_output("scores", scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
# An API process alone; `unobserved` leaves out metrics and drift.
ALONE = """
import socket, sys
from service.scoring.core import Scoring
from service.api.server import serve
from service.settings import Settings
if sys.argv[1] == "unobserved":
    Scoring.record = lambda self, turn, seconds: None
serve(Settings(), socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=2048))
"""


@dataclass(frozen=True)
class Server:
    """A server, the group of its processes, and its score request."""

    port: int
    group: int
    path: str = SCORE
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[np.ndarray], bytes] = lambda X: json.dumps({"vectors": X.tolist()}).encode()

    def cpu(self) -> float:
        """Return the processor time used so far, seconds; 0 if there is no /proc."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.group:  # the session
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def api_process(self) -> int:
        """Return the id of one API process."""
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                ours = os.getsid(int(line.parent.name)) == self.group
                if ours and b"service.api" in line.read_bytes():
                    return int(line.parent.name)
        raise RuntimeError("no API process")

    def call(self, verb: str, path: str, body: bytes | None = None, kind: str = JSON) -> Any:
        """Return the JSON answer to any request but a score."""
        url = f"http://127.0.0.1:{self.port}{path}"
        asked = urllib.request.Request(
            url, body, {"Content-Type": kind, **self.headers}, method=verb
        )
        with urllib.request.urlopen(asked, timeout=300) as answer:
            return json.loads(answer.read() or b"null")

    def wire(self, body: bytes, **headers: str) -> bytes:
        """Return the bytes of a score request."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"Content-Type": JSON, **self.headers, **given}
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in named.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """A client with almost no cost: it sends complete requests and reads complete answers."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, wire: bytes) -> bytes:
        """Return the body of the answer, which must be a 200."""
        self.socket.sendall(wire)
        got = bytearray()
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more()
        assert got.startswith(b"HTTP/1.1 200"), bytes(got[:200])
        length = re.search(rb"(?i)content-length: (\d+)", got[:end])
        assert length is not None
        whole = end + 4 + int(length[1])
        while len(got) < whole:
            got += self._more()
        return bytes(got[end + 4 :])

    def _more(self) -> bytes:
        more = self.socket.recv(2**20)
        if not more:
            raise ConnectionError
        return more


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def pinned(core: int | None, command: list[str]) -> list[str]:
    taskset = shutil.which("taskset")
    if taskset is None or core is None:
        return command
    cores = sorted(os.sched_getaffinity(0))
    return [taskset, "-c", str(cores[core % len(cores)]), *command]


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    started = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def one_vector() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, DIMENSION)).astype(np.float32)


def ready(server: Server) -> Server:
    """Wait until `server` scores."""
    wire, deadline = server.wire(server.body(one_vector())), time.monotonic() + 60
    while True:
        try:
            Connection(server).ask(wire)
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return server


@contextlib.contextmanager
def peer(folder: Path, name: str, source: str) -> Iterator[Server]:
    """Run an ASGI application on uvicorn, as the service does."""
    (folder / f"{name}.py").write_text(source)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{name}:app", "--port", str(port)]
    command += ["--http", "httptools", "--log-level", "warning", "--no-access-log"]
    env = {**os.environ, **ONE_THREAD}
    with process(pinned(0, command), cwd=folder, env=env) as started:
        yield ready(Server(port, started.pid))


@contextlib.contextmanager
def mlserver(folder: Path, python: str) -> Iterator[Server]:
    """Run MLServer, from the environment that `python` belongs to, without its worker processes."""
    models = folder / "mlserver"
    models.mkdir()
    port, grpc, metrics = free_port(), free_port(), free_port()
    settings = {"http_port": port, "grpc_port": grpc, "metrics_port": metrics, "debug": False}
    (models / "settings.json").write_text(
        json.dumps({**settings, "host": "127.0.0.1", "parallel_workers": 0})
    )
    (models / "model-settings.json").write_text(
        json.dumps({"name": "bench", "implementation": "vae.Vae"})
    )
    (models / "vae.py").write_text(MLSERVER)
    command = [python, "-c", "from mlserver.cli import main; main()", "start", str(models)]
    env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(models)}
    log = (folder / "mlserver.log").open("w")
    with log, process(pinned(0, command), cwd=models, env=env, stdout=log, stderr=log) as started:
        yield ready(Server(port, started.pid, "/v2/models/bench/infer", body=_infer))


def _infer(X: np.ndarray) -> bytes:
    tensor = {"name": "x", "shape": X.shape, "datatype": "FP32", "data": X.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


@contextlib.contextmanager
def store(folder: Path) -> Iterator[dict[str, str]]:
    """Run a store; once it listens, yields the environment for processes that use it."""
    from service.processes.embedded_store import find_server

    redis = folder / f"store-{free_port()}"
    redis.mkdir()
    key = redis / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    command = [*find_server(), "--port", "0", "--unixsocket", "s", "--dir", str(redis)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    ours = {"REDIS_URL": f"unix://{redis}/s", "LOG_LEVEL": "error", "ADMIN_KEY_FILE": str(key)}
    with process(command, cwd=redis, stdout=subprocess.DEVNULL) as started:
        while not (redis / "s").exists():
            assert started.poll() is None, "the store did not start"
            time.sleep(0.01)
        yield {**os.environ, **{f"ANAMNESIS_{name}": value for name, value in ours.items()}}


@contextlib.contextmanager
def api(
    env: dict[str, str],
    artifact: bytes | None,
    *,
    workers: int = 1,
    core: int | None = 0,
    names: bool = False,
    tree: Path | None = None,
) -> Iterator[Server]:
    """Run `anamnesis api`; import `artifact` as champion over HTTP, if one is given.

    If `tree` is given, the code is that of the checkout there.
    """
    port = free_port()
    if tree is not None:
        env = {**env, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", "from service.cli.__main__ import main; main()"]
    command += ["api", "--port", str(port), "--workers", str(workers)]
    with process(pinned(core, command), env=env, cwd=tree, stdout=subprocess.DEVNULL) as started:
        yield _serving(Server(port, started.pid, headers=_authorized()), artifact, names)


@contextlib.contextmanager
def api_alone(env: dict[str, str], how: str) -> Iterator[Server]:
    """Run one API process, `observed` or `unobserved` by `how`; the store has a champion."""
    port = free_port()
    command = [sys.executable, "-c", ALONE, how, str(port)]
    with process(pinned(0, command), env=env, stdout=subprocess.DEVNULL) as started:
        yield ready(Server(port, started.pid, headers=_authorized()))


@contextlib.contextmanager
def everything(folder: Path, artifact: bytes) -> Iterator[Server]:
    """Run `anamnesis up`: store, API and worker in one session, within which niceness counts."""
    port, key = free_port(), folder / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    command = [sys.executable, "-c", "from service.cli.__main__ import main; main()"]
    command += ["up", "--port", str(port), "--data-dir", str(folder / "data")]
    ours = {"ANAMNESIS_LOG_LEVEL": "error", "ANAMNESIS_ADMIN_KEY_FILE": str(key)}
    with process(command, env={**os.environ, **ours}, stdout=subprocess.DEVNULL) as started:
        yield _serving(Server(port, started.pid, headers=_authorized()), artifact)


def _authorized() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


def _serving(server: Server, artifact: bytes | None, names: bool = False) -> Server:
    if artifact is not None:
        _wait_for_answer(server)
        base = "/v1/detectors/bench"
        config = {"features": NAMES} if names else {"dimension": DIMENSION}
        server.call("PUT", base, json.dumps(config).encode())
        server.call("POST", f"{base}/versions", artifact, OCTETS)
        server.call("PUT", f"{base}/champion", b'{"version": 1}')
    return ready(server)


def _wait_for_answer(server: Server) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.call("GET", "/readyz")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@dataclass
class Load:
    """The measurements of a load generator."""

    rate: float
    cpu: float  # us of the server's processor time a request; other work changes it least
    p50: float  # ms
    p99: float  # ms
    failed: int


LUA = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
"""


def load(server: Server, connections: int, seconds: int, X: np.ndarray, folder: Path) -> Load:
    """Load `server` with the vectors X, as JSON, from another core with wrk."""
    body, script = folder / "load.body", folder / "load.lua"
    body.write_bytes(server.body(X))
    heads = {"Content-Type": JSON, **server.headers}
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in heads.items()]
    script.write_text("\n".join([LUA.format(body=body), *lines]))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    url = f"http://127.0.0.1:{server.port}{server.path}"
    before = server.cpu()
    output = subprocess.run(
        pinned(1, [*command, url]), capture_output=True, text=True, check=True
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert rate is not None, output
    done = re.search(r"(\d+) requests in", output)
    assert done is not None, output
    cpu = (server.cpu() - before) * 1e6 / max(int(done[1]), 1)
    return Load(
        float(rate[1]), cpu, _ms(output, "50%"), _ms(output, "99%"), int(failed[1]) if failed else 0
    )


def _ms(output: str, quantile: str) -> float:
    match = re.search(rf"{re.escape(quantile)}\s+([\d.]+)(us|ms|s)", output)
    assert match is not None, output
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]]


def by_name(X: np.ndarray) -> bytes:
    """Return the body of a request for the rows X (n, 32) with the champion's names."""
    return json.dumps(
        {"records": [dict(zip(NAMES, row, strict=True)) for row in X.tolist()]}
    ).encode()


def champion(score: str = "elbo", names: tuple[str, ...] | None = None) -> Any:
    """Return a version of 32 features, 64-32-8-32-64."""
    from models import Config, Model, train

    X = np.random.default_rng(0).normal(size=(4000, DIMENSION)).astype(np.float32)
    model = Model(epochs=5, hidden=(64, 32), latent=8)
    return train(None, X, Config(score=score, features=names, model=model))


def champion_of(tree: Path) -> bytes:
    """Return the artifact of `champion`, made by a checkout that may not know newer ones."""
    code = "import sys; from benchmarks import servers as s; "
    code += "sys.stdout.buffer.write(s.champion('elbo', s.NAMES).to_bytes())"
    env = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.PIPE).stdout


def begin() -> None:
    """Restart the program with one thread for each numeric library; check that wrk exists."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: `apt-get install wrk`, or your system's own way")
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # numpy reads these variables when it is loaded. It is loaded by now.
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **ONE_THREAD})
