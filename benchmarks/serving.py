"""How fast one vector, and a thousand, are scored: beside peers started in the same run.

The service is the real one: an API process with metrics, drift and every check, over a store, with
a champion of 32 features (64-32-8-32-64). Server on one core, load on another. The peers are a bare
ASGI application that answers a constant (what the server itself can do at best) and what a user
would write: FastAPI, pydantic and torch.

    python benchmarks/serving.py --seconds 3 --output benchmarks/results/serving.json
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import report

CONNECTIONS = (1, 16, 64, 256)
DIMENSION = 32
ROWS = 1000
PATH = "/v1/detectors/bench/score"
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# The peers, each a file of its own in a temporary folder.
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
LUA = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
"""


@dataclass
class Load:
    """What a load generator saw."""

    rate: float
    cpu: float  # us of the server's processor time a request; what a busy machine disturbs least
    p50: float  # ms
    p99: float  # ms
    failed: int


@dataclass
class Server:
    """A server under load, and the group of its processes."""

    port: int
    group: int
    query: str = ""

    def cpu(self) -> float:
        """Return the processor time used so far, seconds; 0 where there is no /proc."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.group:  # the session
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def post(port: int, body: bytes, **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{PATH}", body, named)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return bytes(answer.read())


def pinned(core: int, command: list[str]) -> list[str]:
    taskset = shutil.which("taskset")
    cores = sorted(os.sched_getaffinity(0)) if taskset else []
    return [taskset, "-c", str(cores[core % len(cores)]), *command] if taskset else command


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


def ready(port: int, body: bytes) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            post(port, body, Content_Type="application/json")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def peer(folder: Path, name: str, source: str, body: bytes) -> Iterator["Server"]:
    (folder / f"{name}.py").write_text(source)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{name}:app", "--port", str(port)]
    command += ["--http", "httptools", "--log-level", "warning", "--no-access-log"]
    env = {**os.environ, **ONE_THREAD}
    with process(pinned(0, command), cwd=folder, env=env) as started:
        ready(port, body)
        yield Server(port, started.pid)


@contextlib.contextmanager
def service(folder: Path, artifact: bytes, body: bytes) -> Iterator["Server"]:
    """Run store and API alone; the champion is imported, as a user would import one."""
    redis, port = folder / "store", free_port()
    redis.mkdir()
    from service.embedded import find_server

    store = [*find_server(), "--port", "0", "--unixsocket", "s", "--dir", str(redis)]
    store += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    env = {**os.environ, "ANAMNESIS_REDIS_URL": f"unix://{redis}/s", "ANAMNESIS_LOG_LEVEL": "error"}
    with process(store, cwd=redis, stdout=subprocess.DEVNULL):
        command = [sys.executable, "-c", "from service.cli import main; main()"]
        command += ["api", "--port", str(port)]
        with process(pinned(0, command), env=env, stdout=subprocess.DEVNULL) as started:
            base = f"http://127.0.0.1:{port}/v1/detectors/bench"
            wait(f"http://127.0.0.1:{port}/readyz")
            call("PUT", base, b'{"dimension": 32}', "application/json")
            call("POST", f"{base}/versions", artifact, "application/octet-stream")
            call("PUT", f"{base}/champion", b'{"version": 1}', "application/json")
            ready(port, body)
            yield Server(port, started.pid)


def call(verb: str, url: str, body: bytes, kind: str) -> None:
    asked = urllib.request.Request(url, body, {"Content-Type": kind}, method=verb)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        answer.read()


def wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def load(server: Server, connections: int, seconds: int, script: Path) -> Load:
    """Load `server` from another core with wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    url = f"http://127.0.0.1:{server.port}{PATH}{server.query}"
    before = server.cpu()
    said = subprocess.run(
        pinned(1, [*command, url]), capture_output=True, text=True, check=True
    ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    cpu = (server.cpu() - before) * 1e6 / max(int(done[1]), 1)
    return Load(
        float(rate[1]), cpu, _ms(said, "50%"), _ms(said, "99%"), int(failed[1]) if failed else 0
    )


def _ms(said: str, quantile: str) -> float:
    found = re.search(rf"{re.escape(quantile)}\s+([\d.]+)(us|ms|s)", said)
    assert found is not None, said
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def champion() -> Any:
    from models import Config, Model, train

    X = np.random.default_rng(0).normal(size=(4000, DIMENSION)).astype(np.float32)
    return train(None, X, Config(model=Model(epochs=5, hidden=(64, 32), latent=8)))


def one_vector(servers: dict[str, Server], script: Path, seconds: int, rounds: int) -> list[dict]:
    """Load every server in turn, `rounds` times: ratios are medians over rounds."""
    rows = []
    for connections in CONNECTIONS:
        seen: dict[str, list[Load]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                seen[name].append(load(server, connections, seconds, script))
        for name, loads in seen.items():
            ratio = {
                f"x {other}": statistics.median(
                    mine.rate / its.rate for mine, its in zip(loads, seen[other], strict=True)
                )
                for other in ("bare", "naive")
            }
            rows.append(
                {
                    "server": name,
                    "connections": connections,
                    "requests/s": round(statistics.median(one.rate for one in loads)),
                    "cpu us": statistics.median(one.cpu for one in loads),
                    "p50 ms": statistics.median(one.p50 for one in loads),
                    "p99 ms": statistics.median(one.p99 for one in loads),
                    **ratio,
                    "failed": sum(one.failed for one in loads),
                }
            )
    return rows


def thousand(servers: dict[str, Server], version: Any, rounds: int = 30) -> list[dict]:
    """Time requests of a thousand vectors, one connection, beside the kernel's own time."""
    X = np.random.default_rng(2).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    octets, kind = X.tobytes(), "application/octet-stream"
    document = json.dumps({"vectors": X.tolist()}).encode()
    json_kind = {"Content-Type": "application/json"}
    threshold = version.threshold_for({"fpr": 0.01})
    asks = {
        "kernel alone": lambda: version.judge(X, threshold),
        "octet-stream in and out": _asking(
            servers["anamnesis"].port, octets, {"Content-Type": kind, "Accept": kind}
        ),
        "JSON in and out": _asking(servers["anamnesis"].port, document, json_kind),
        "naive, JSON": _asking(servers["naive"].port, document, json_kind),
    }
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(rounds):
        for name, ask in asks.items():
            started = time.perf_counter()
            ask()
            times[name].append((time.perf_counter() - started) * 1e3)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "1000 vectors": name,
            "ms": value,
            "x kernel": value / middle["kernel alone"],
            "naive / this": middle["naive, JSON"] / value,
        }
        for name, value in middle.items()
    ]


def _asking(port: int, body: bytes, headers: dict[str, str]) -> Any:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> None:
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    return ask


def draw(rows: list[dict], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name in dict.fromkeys(row["server"] for row in rows):
        mine = [row for row in rows if row["server"] == name]
        x = [row["connections"] for row in mine]
        axes.plot(x, [row["requests/s"] for row in mine], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="requests/s")
    axes.set_xticks(CONNECTIONS, [str(n) for n in CONNECTIONS])
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")


def main() -> None:
    arguments = report.arguments(__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=int, default=3, help="of each load")
    arguments.add_argument("--rounds", type=int, default=3, help="loads of each server")
    given = arguments.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: `apt-get install wrk`, or your system's own way")
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # Read when numpy is loaded, which is before this line: begin again with them.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    version = champion()
    vector = np.random.default_rng(1).normal(size=(1, DIMENSION)).astype(np.float32)
    body = json.dumps({"vectors": vector.tolist()}).encode()
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        script = folder / "one.lua"
        script.write_text(LUA.format(body=body.decode()))
        servers = {
            "bare": stack.enter_context(peer(folder, "bare", BARE, body)),
            "naive": stack.enter_context(peer(folder, "naive", NAIVE, body)),
            "anamnesis": stack.enter_context(service(folder, version.to_bytes(), body)),
        }
        # A query, even one that asks for nothing, takes a request to the FastAPI route.
        servers["anamnesis, route"] = replace(servers["anamnesis"], query="?via=route")
        rows = one_vector(servers, script, given.seconds, given.rounds)
        many = thousand(servers, version)
    report.report("Serving", rows, given.output, thousand=many)
    print()
    print(report.table(many))
    if given.output is not None:
        draw(rows, given.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
