"""Tests whether memory, descriptors, keys or the cost of a request grow while the service runs.

There is one real API process, worker and store, and one detector. It is scored at a steady rate,
takes normal batches, and is retrained and swapped about every ten seconds. Every sample has the
memory and the descriptors of each process, the store's keys and memory, and the cost of the
requests since the previous sample.

    python -m benchmarks.soak --minutes 30 --output benchmarks/results/soak.json
"""

import contextlib
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks import report, servers

PARTS = {
    "service.api": "api",
    "service.worker": "worker",
    "service.trainer": "trainer",
    "valkey-server": "store",
    "redis-server": "store",
}
BOUNDED = {f"{part} MiB" for part in PARTS.values() if part != "store"}
BATCH = 20  # vectors of a normal batch; BATCHES a second make a retraining every ten seconds
BATCHES = 5
CONFIG = {
    "dimension": servers.DIMENSION,
    "retrain": {"min_vectors": 1000},
    "gate": "report",
    "model": {"hidden": [64, 32], "latent": 8, "epochs": 5},
}


class Load(threading.Thread):
    """Sends requests, with a pause after each answer, and records how long each answer took."""

    def __init__(self, ask, rate, stop):
        super().__init__(daemon=True)
        self.ask, self.pause, self.stop, self.times, self.failed = ask, 1 / rate, stop, [], 0

    def run(self):
        """Send requests until stopped."""
        while not self.stop.wait(self.pause):
            start = time.perf_counter()
            try:
                self.ask()
            except (OSError, AssertionError):
                self.failed += 1
            else:
                self.times.append(time.perf_counter() - start)

    def taken(self):
        """Return the seconds that each answer since the last call took."""
        times, self.times = self.times, []
        return times


def processes():
    """Return the process of each part of the service, by the part's name."""
    parts = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            command = " ".join(process.cmdline())
            parts |= {part: process for program, part in PARTS.items() if program in command}
    return parts


def api_cpu():
    """Return the processor time that the API process has used, seconds."""
    times = processes()["api"].cpu_times()
    return times.user + times.system


def sample(server, redis, load, before):
    """Return one row, and the API process's processor time so far."""
    row = {}
    for part, process in processes().items():
        row[f"{part} MiB"] = process.memory_info().rss / 2**20
        row[f"{part} files"] = process.num_fds()
    row["keys"] = redis.dbsize()
    row["store used MiB"] = redis.info("memory")["used_memory"] / 2**20
    times, cpu = load.taken(), api_cpu()
    row["requests"] = len(times)
    # The figure includes the normal batches, which come at a constant rate.
    row["api cpu us"] = (cpu - before) * 1e6 / max(len(times), 1)
    row["p50 ms"], row["p99 ms"] = (1e3 * np.quantile(times, [0.5, 0.99])).tolist()
    status = server.call("GET", "/v1/detectors/bench")
    row["champion"], row["generation"] = status["champion"], status["generation"]
    return row, cpu


def soak(server, redis, minutes, every):
    """Return a sample for each `every` seconds of `minutes`, and the number of failed requests."""
    rng, stop = np.random.default_rng(0), threading.Event()
    wire, connection = server.wire(server.body(servers.one_vector())), servers.Connection(server)

    def batch():
        X = rng.normal(size=(BATCH, servers.DIMENSION)).astype(np.float32)
        server.call("POST", "/v1/detectors/bench/normal", X.tobytes(), servers.OCTETS)

    loads = [Load(lambda: connection.ask(wire), 200, stop), Load(batch, BATCHES, stop)]
    for load in loads:
        load.start()
    start, rows, cpu = time.monotonic(), [], api_cpu()
    while (elapsed := time.monotonic() - start) < 60 * minutes:
        time.sleep(max(0.0, (len(rows) + 1) * every - elapsed))
        row, cpu = sample(server, redis, loads[0], cpu)
        rows.append({"minute": (time.monotonic() - start) / 60, **row})
    stop.set()
    return rows, sum(load.failed for load in loads)


def growth(rows):
    """Return the early and the late median of each figure, and its growth.

    Early is the second fifth of the samples, because caches fill during the first.
    """
    fifth = max(len(rows) // 5, 1)
    lines = []
    for name in rows[-1]:
        if name in ("minute", "requests", "champion", "generation"):
            continue
        early = [row[name] for row in rows[fifth : 2 * fifth] if name in row]
        late = [row[name] for row in rows[-fifth:] if name in row]
        if early and late:
            first, last = statistics.median(early), statistics.median(late)
            lines.append({"": name, "early": first, "late": last,
                          "growth %": 100 * (last / first - 1) if first else 0.0})  # fmt: skip
    return lines


def draw(rows, path):
    """Draw the memory and the latency over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    minutes = [row["minute"] for row in rows]
    for part in ("api", "worker", "trainer", "store"):
        left.plot(minutes, [row.get(f"{part} MiB") for row in rows], label=part)
    left.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None))
    left.legend()
    for name in ("p50 ms", "p99 ms"):
        right.plot(minutes, [row[name] for row in rows], label=name)
    right.set(xlabel="minutes", ylabel="answer to one vector, ms", yscale="log")
    right.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = report.arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="one minute")
    args = parser.parse_args()
    minutes = 1.0 if args.quick else args.minutes
    import redis

    from service.processes.data_directory import socket_path

    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder, artifact = Path(name), servers.champion().to_bytes()
        with servers.everything(folder, artifact) as server:
            server.call("PUT", "/v1/detectors/bench", json.dumps(CONFIG).encode())
            client = redis.Redis(unix_socket_path=str(socket_path(folder / "data")))
            rows, failed = soak(server, client, minutes, min(10.0, 60 * minutes / 20))
    lines = growth(rows)
    swaps = rows[-1]["generation"] - 1
    requests = sum(row["requests"] for row in rows)
    report.report("Soak", lines, args.output, samples=rows, failed=failed, swaps=swaps)
    grown = {line[""]: line["growth %"] for line in lines if line[""] in BOUNDED}
    most = max(grown, key=grown.get)
    # Each version leaves a record that stays; all other data in the store is bounded.
    first, last = rows[len(rows) // 2], rows[-1]
    kept = 1024 * (last["store used MiB"] - first["store used MiB"])
    kept /= max(last["generation"] - first["generation"], 1)
    print(
        f"\n{minutes:g} minutes, {requests} requests, {failed} failed, {swaps} swaps; the "
        f"processes grew by {grown[most]:.1f} % at the most ({most}): "
        f"{'within' if grown[most] <= 5 else 'BEYOND'} 5 %; in the second half the store grew by "
        f"{kept:.1f} KiB a version"
    )
    if args.output is not None:
        draw(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
