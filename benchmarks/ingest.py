"""The rate of ingestion: vectors a second, with each batch on disk before its answer.

The service is complete: an API process with a store that syncs every write. In the same run and on
the same store, `redis-benchmark` adds as many bytes over as many connections by XADD, which gives
the limit of the store alone. The API runs on one core, the load on another, and the store on both.

    python -m benchmarks.ingest --seconds 2 --output benchmarks/results/ingest.json
"""

import csv
import io
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import report, servers

CONNECTIONS, BATCHES = (1, 8, 32, 64), (1, 10, 100, 1000)
NORMAL = "/v1/detectors/bench/normal"
UNBOUNDED = {"ANAMNESIS_BUFFER_MAX_VECTORS": str(10**9), "ANAMNESIS_BUFFER_MAX_BYTES": str(2**40)}
CONFIG = b'{"dimension": 32, "retrain": {"min_vectors": null, "max_age_seconds": null}}'
KINDS = {"octet-stream": servers.OCTETS, "JSON": servers.JSON}


def vectors(n):
    return np.random.default_rng(n).normal(size=(n, servers.DIMENSION)).astype(np.float32)


def xadd(socket, n, connections, requests, folder):
    """Return (entries/s, p50 ms, p99 ms) of XADD as `redis-benchmark` sees it."""
    payload = folder / "payload"
    payload.write_bytes(b"x" * vectors(n).nbytes)
    command = ["redis-benchmark", "-s", socket, "-c", str(connections), "-n", str(requests)]
    command += ["--csv", "-x", "XADD", "bare", "*", "x"]
    with payload.open("rb") as last:
        output = subprocess.run(
            servers.pinned(1, command), stdin=last, capture_output=True, text=True, check=True
        ).stdout
    (row,) = csv.DictReader(io.StringIO(output[output.index('"test"') :]))
    subprocess.run(["redis-cli", "-s", socket, "UNLINK", "bare"], check=True, capture_output=True)
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def ingest(server, kind, n, connections, seconds, folder):
    """Load the service with batches of `n` vectors for a new detector."""
    server.call("PUT", "/v1/detectors/bench", CONFIG)
    normal = replace(
        server,
        path=NORMAL,
        headers={**server.headers, "Content-Type": KINDS[kind]},
        body=np.ndarray.tobytes if kind == "octet-stream" else server.body,
    )
    load = servers.load(normal, connections, seconds, vectors(n), folder)
    server.call("DELETE", "/v1/detectors/bench")
    return load


def measure(server, socket, args, folder):
    """Return one row for each kind, batch size and number of connections."""
    rows = []
    for n in args.batches:
        for connections in args.connections:
            for kind in args.kinds:
                load = ingest(server, kind, n, connections, args.seconds, folder)
                requests = max(int(load.rate * args.seconds), 200)
                bare, p50, p99 = xadd(socket, n, connections, requests, folder)
                rows.append(
                    {
                        "body": kind,
                        "vectors": n,
                        "connections": connections,
                        "batches/s": round(load.rate),
                        "vectors/s": round(load.rate * n),
                        "p50 ms": load.p50,
                        "p99 ms": load.p99,
                        "cpu us": load.cpu,
                        "failed": load.failed,
                        "XADD/s": round(bare),
                        "XADD p50 ms": p50,
                        "XADD p99 ms": p99,
                        "x XADD": load.rate / bare,
                    }
                )
    return rows


def draw(rows, path):
    """Draw vectors a second over connections, one line for each batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for kind, style in zip(KINDS, ("-", "--"), strict=True):
        for i, n in enumerate(dict.fromkeys(row["vectors"] for row in rows)):
            points = [row for row in rows if (row["body"], row["vectors"]) == (kind, n)]
            x = [row["connections"] for row in points]
            axes.plot(x, [row["vectors/s"] for row in points], style, color=f"C{i}", marker="o",
                      label=f"{kind}, batches of {n}" if points else None)  # fmt: skip
    axes.axhline(20_000, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="vectors/s, on disk")
    axes.set_xticks(CONNECTIONS, [str(n) for n in CONNECTIONS])
    axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def main():
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="batch sizes")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--quick", action="store_true", help="raw batches of 100, 1 s each")
    args = parser.parse_args()
    if args.quick:
        args.batches, args.kinds, args.seconds = [100], ["octet-stream"], 1
    if shutil.which("redis-benchmark") is None:
        raise SystemExit("redis-benchmark is not installed: it comes with redis (redis-tools)")
    servers.begin()
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder = Path(name)
        with servers.store(folder) as env:
            socket = env["ANAMNESIS_REDIS_URL"].removeprefix("unix://")
            artifact = servers.champion().to_bytes()
            with servers.api({**env, **UNBOUNDED}, artifact) as server:
                rows = measure(server, socket, args, folder)
    report.report("Ingestion", rows, args.output, fsync=_syncs(name))
    if args.output is not None:
        draw(rows, args.output.with_suffix(".png"))


def _syncs(folder):
    """Return how many small writes a second the disk of `folder`'s parent syncs, one by one."""
    with tempfile.TemporaryFile(dir=Path(folder).parent) as file:
        start, n = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            n += 1
    rate = n / (time.perf_counter() - start)
    print(f"the disk syncs {rate:.0f} writes a second, one after another")
    return rate


if __name__ == "__main__":
    main()
