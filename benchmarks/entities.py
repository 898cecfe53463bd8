"""Ten thousand entities of one template, with traffic that follows Zipf's law.

The template's detector has a champion. The first normal batch of each entity makes its detector.
The entities of the first ranks send enough vectors for a training, and a worker learns them. Then
vectors are scored for entities drawn by Zipf's law. An entity with a version is judged by it, any
other by the template's detector.

    python -m benchmarks.entities --entities 10000 --output benchmarks/results/entities.json
"""

import json
import subprocess
import tempfile
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import report, servers
from benchmarks.autoscale import LOOK_SECONDS, WORKER
from benchmarks.on_demand import Asker, memory, quantile

TEMPLATE, LEAST = "pump", 200  # LEAST: vectors of a training
SHARE = 20_000  # the entity of rank r sends SHARE / r vectors
CLIENTS, READINGS = 8, 5  # READINGS: times that memory is read while vectors are scored
IDLE_SECONDS = 10.0

Row = dict[str, object]


def measure(entities: int, requests: int, artifact: bytes) -> tuple[Row, list[Row]]:
    """Return one row, and others: the memory (MiB) of the API process over the requests."""
    names = [f"{TEMPLATE}:e-{i}" for i in range(entities)]
    with (
        tempfile.TemporaryDirectory(prefix="anamnesis-") as folder,
        servers.store(Path(folder)) as env,
        servers.api(env, artifact) as server,
    ):
        _template(server, artifact)
        row: Row = {"entities": entities, "start MiB": memory(server)}
        began = time.monotonic()
        _make(server, names)
        row["made/s"] = round(entities / (time.monotonic() - began))
        row["learned"] = _learn(server, env, names[: SHARE // LEAST])
        row["made MiB"] = memory(server)
        used, began = server.cpu(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        row["idle cpu %"] = round(100 * (server.cpu() - used) / (time.monotonic() - began), 1)
        scored, readings = _score(server, names, requests)
        return row | scored, readings


def _template(server: servers.Server, artifact: bytes) -> None:
    """Create the template, and its detector with a champion."""
    retrain = {"min_vectors": LEAST, "max_age_seconds": None}
    config = {"kind": "mahalanobis", "dimension": servers.DIMENSION, "retrain": retrain}
    body = json.dumps(config | {"incident": None}).encode()
    server.call("PUT", f"/v1/templates/{TEMPLATE}", body)
    detector = f"/v1/detectors/{TEMPLATE}"
    server.call("PUT", detector, body)
    server.call("POST", f"{detector}/versions", artifact, servers.OCTETS)
    server.call("PUT", f"{detector}/champion", b'{"version": 1}')


def _make(server: servers.Server, names: list[str]) -> None:
    """Send each entity's first normal batch, from several clients at once."""

    def send(rank: int) -> None:
        rng = np.random.default_rng(rank)
        rows = rng.normal(size=(max(1, SHARE // rank), servers.DIMENSION)).round(3)
        body = json.dumps({"vectors": rows.tolist()}).encode()
        while True:
            try:
                server.call("POST", f"/v1/detectors/{names[rank - 1]}/normal", body)
            except urllib.error.HTTPError as error:
                if error.code != 503:  # the store of a busy machine did not answer in time
                    raise
                time.sleep(1)
            else:
                return

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(send, range(1, len(names) + 1)))


def _learn(server: servers.Server, env: dict[str, str], due: list[str]) -> int:
    """Let one worker learn all that is due; return how many of the entities have a version."""
    with servers.process(WORKER, env=env, stdout=subprocess.DEVNULL):
        while True:
            work = server.call("GET", "/v1/work")
            if not work["due"] + work["running"]:
                break
            time.sleep(LOOK_SECONDS)
    return sum(server.call("GET", f"/v1/detectors/{name}")["champion"] == 1 for name in due)


def _score(server: servers.Server, names: list[str], requests: int) -> tuple[Row, list[Row]]:
    """Score one vector a request, over one connection."""
    ask, rng = Asker(server), np.random.default_rng(1)
    popularity = 1.0 / np.arange(1, len(names) + 1)
    drawn = rng.choice(len(names), size=requests, p=popularity / popularity.sum())
    took: list[float] = []
    readings: list[Row] = [{"requests": 0, "MiB": memory(server)}]
    for part in np.array_split(drawn, READINGS):
        took += [ask(names[rank]) for rank in part]
        readings.append({"requests": len(took), "MiB": memory(server)})
    row: Row = {
        "asked": len(np.unique(drawn)),
        "p50 ms": quantile(took, 50),
        "p99 ms": quantile(took, 99),
        "refused": ask.refused,
        "end MiB": readings[-1]["MiB"],
    }
    return row, readings


def main() -> None:
    """Print a row, and the memory over time."""
    parser = report.arguments(__doc__)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20_000)
    args = parser.parse_args()
    servers.begin()
    row, readings = measure(args.entities, args.requests, servers.champion().to_bytes())
    report.report("Entities", [row], args.output, {"Memory over time": readings})


if __name__ == "__main__":
    main()
