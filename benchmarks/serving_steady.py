"""The latency of scoring under disturbances, and its other costs.

The latency is measured at a constant rate of requests, each sent when it is due: while the worker
trains, with three swaps a second, and with five hundred slow connections. Other tables give the
cost of drift and metrics, of a second API process and of memory, and the time to the first score.
Every figure is compared with the same figure without the disturbance, by turns in one run.

    python -m benchmarks.serving_steady --output benchmarks/results/serving_steady.json
"""

import asyncio
import concurrent.futures
import contextlib
import re
import select
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, servers
from benchmarks.servers import DIMENSION, JSON, OCTETS, Connection, Server

RATE = 2000  # requests a second
LINES = 16  # connections that share the requests
SLOW = 500  # slow connections
CLOSED_WITHIN = 11.0  # seconds


class Line(asyncio.Protocol):
    """One connection; it records the time from when each request was due until its answer."""

    def __init__(self, taken: list[float]) -> None:
        self.taken = taken
        self.due: list[float] = []
        self.failed = 0
        self.got = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport

    def ask(self, wire: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        self.due.append(due)
        self.transport.write(wire)

    def data_received(self, data: bytes) -> None:
        """Read the answers that have arrived."""
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"(?i)content-length: (\d+)", self.got[:end])
            whole = end + 4 + int(length[1] if length else 0)
            if len(self.got) < whole:
                return
            self.failed += not self.got.startswith(b"HTTP/1.1 200")
            self.got = self.got[whole:]
            self.taken.append(time.perf_counter() - self.due.pop(0))


async def _at_rate(server: Server, seconds: float) -> tuple[list[float], int]:
    loop, taken = asyncio.get_running_loop(), []
    lines = [
        (await loop.create_connection(lambda: Line(taken), "127.0.0.1", server.port))[1]
        for _ in range(LINES)
    ]
    wire = server.wire(server.body(servers.one_vector()))
    started, asked = time.perf_counter(), 0
    while asked < seconds * RATE:
        due = started + asked / RATE
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        lines[asked % LINES].ask(wire, due)
        asked += 1
    for _ in range(1000):
        if len(taken) < asked:
            await asyncio.sleep(0.01)
    for line in lines:
        line.transport.close()
    return taken, asked - len(taken) + sum(line.failed for line in lines)


def at_rate(server: Server, seconds: float) -> tuple[float, int]:
    """Return the 99th percentile, ms, at a constant rate, and the number without a score."""
    taken, lost = asyncio.run(_at_rate(server, seconds))
    return float(np.quantile(taken, 0.99)) * 1e3, lost


@contextlib.contextmanager
def repeated(action: Callable[[], None], every: float) -> Iterator[list[int]]:
    """Repeat `action` in a thread; yields a list with the number of repetitions."""
    stop, done = threading.Event(), [0]

    def run() -> None:
        while not stop.is_set():
            action()
            done[0] += 1
            stop.wait(every)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def training(server: Server, given: Any) -> list[dict]:
    """Compare a quiet service with one that trains, and with one that trains and swaps."""
    rng, base = np.random.default_rng(3), "/v1/detectors"
    config = b'{"dimension": 32, "gate": "report", "retrain": {"min_vectors": null}}'
    server.call("PUT", f"{base}/learner", config)

    def learn() -> None:
        batch = rng.normal(size=(1000, DIMENSION)).astype(np.float32).tobytes()
        server.call("POST", f"{base}/learner/normal", batch, OCTETS)
        server.call("POST", f"{base}/learner/retrain", b'{"wait": 120}')

    def swap() -> None:
        champion[0] = 3 - champion[0]  # version 1 and version 2 by turns
        server.call("PUT", f"{base}/bench/champion", b'{"version": %d}' % champion[0])

    champion = [1]
    artifact = servers.champion().to_bytes()
    server.call("POST", f"{base}/bench/versions", artifact, OCTETS)
    learn()
    at_rate(server, 1.0)
    seen: dict[str, list[tuple[float, int]]] = {"quiet": [], "training": [], "swapping": []}
    times = {"training": 0, "swapping": 0}
    for _ in range(given.rounds):
        seen["quiet"].append(at_rate(server, given.seconds))
        with repeated(learn, 0.0) as learned:
            time.sleep(0.3)
            seen["training"].append(at_rate(server, given.seconds))
            with repeated(swap, 1 / 3) as swapped:
                seen["swapping"].append(at_rate(server, given.seconds))
        times["training"] += learned[0]
        times["swapping"] += swapped[0]
    names = {"quiet": "quiet", "training": "while training", "swapping": "training, 3 swaps/s"}
    return [
        {
            f"{RATE} requests/s": names[name],
            "p99 ms": statistics.median(p99 for p99, _ in measured),
            "x quiet": statistics.median(
                p99 / quiet for (p99, _), (quiet, _) in zip(measured, seen["quiet"], strict=True)
            ),
            "ms above quiet": statistics.median(
                p99 - quiet for (p99, _), (quiet, _) in zip(measured, seen["quiet"], strict=True)
            ),
            "lost": sum(lost for _, lost in measured),
            "times": times.get(name, 0),
        }
        for name, measured in seen.items()
    ]


def slow_peers(server: Server, given: Any) -> list[dict]:
    """Hold connections of five slow patterns; return when they were closed, and others' latency."""
    quiet, lost = at_rate(server, given.seconds)
    wire = server.wire(server.body(servers.one_vector()))
    # Another process, so that its work does not count as the server's.
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        slow = pool.submit(hold, server.port, wire)
        beside, lost_too = at_rate(server, CLOSED_WITHIN)
        ended = slow.result()
    rows = [
        {
            f"{SLOW} slow connections": name,
            "closed": f"{len(after)} of {SLOW // 5}",
            "after s": max(after, default=0.0),
        }
        for name, after in ended.items()
    ]
    others = {"quiet p99 ms": quiet, "p99 ms": beside, "x quiet": beside / quiet}
    return [{**row, **others, "lost": lost + lost_too} for row in rows]


def hold(port: int, wire: bytes) -> dict[str, list[float]]:
    """Open slow connections; return for each pattern the time until they were closed."""
    head, body = wire.split(b"\r\n\r\n", 1)
    began = {
        "idle": b"",
        "slow head": head[:30],
        "slow body": head + b"\r\n\r\n" + body[:5],
        "byte by byte": b"",
        "not reading": wire * 20,
    }
    poll, held_open = select.poll(), {}
    for name in list(began) * (SLOW // 5):
        connection = socket.socket()
        if name == "not reading":
            # With small segments the system buffers little, so the server must handle the rest.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.send(began[name])
        connection.settimeout(0)
        held_open[connection.fileno()] = (name, connection, time.perf_counter())
        # A connection that does not read sees only a reset.
        poll.register(connection, 0 if name == "not reading" else select.POLLIN)
    ended: dict[str, list[float]] = {name: [] for name in began}
    deadline = time.perf_counter() + 2 * CLOSED_WITHIN
    sent = 0
    while held_open and time.perf_counter() < deadline:
        more = {"byte by byte": wire[sent : sent + 1], "not reading": wire}
        for name, connection, _ in held_open.values():
            with contextlib.suppress(OSError):
                connection.send(more.get(name, b""))
        sent = min(sent + 1, 100)  # never the whole of it
        time.sleep(0.2)
        for number, event in poll.poll(0):
            name, connection, at = held_open[number]
            if event & (select.POLLHUP | select.POLLERR) or _ended(connection):
                ended[name].append(time.perf_counter() - at)
                poll.unregister(number)
                held_open.pop(number)
    return ended


def _ended(connection: socket.socket) -> bool:
    """Return whether the connection ended; read what comes before, such as a 408."""
    try:
        return not connection.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


def observing(env: dict[str, str], given: Any, folder: Path) -> list[dict]:
    """Compare a process that keeps metrics and drift with one that does not."""
    loads: dict[str, list[servers.Load]] = {"observed": [], "unobserved": []}
    with contextlib.ExitStack() as stack:
        running = {how: stack.enter_context(servers.api_alone(env, how)) for how in loads}
        for _ in range(given.rounds):
            for how, server in running.items():
                X = servers.one_vector()
                loads[how].append(servers.load(server, 64, round(given.seconds), X, folder))
    return _beside("64 connections", loads, "unobserved")


def processes(env: dict[str, str], given: Any, folder: Path) -> list[dict]:
    """Compare one API process with two, on all cores."""
    loads: dict[str, list[servers.Load]] = {"1 process": [], "2 processes": []}
    for _ in range(given.rounds):
        for workers, load in enumerate(loads.values(), 1):
            with servers.api(env, None, workers=workers, core=None) as server:
                X = servers.one_vector()
                load.append(servers.load(server, 64, round(given.seconds), X, folder))
    return _beside("64 connections", loads, "1 process")


def _beside(what: str, loads: dict[str, list[servers.Load]], other: str) -> list[dict]:
    return [
        {
            what: name,
            "requests/s": round(statistics.median(results.rate for results in load)),
            "cpu us": statistics.median(results.cpu for results in load),
            f"cpu x {other}": statistics.median(
                a.cpu / b.cpu for a, b in zip(load, loads[other], strict=True)
            ),
        }
        for name, load in loads.items()
    ]


def memory(server: Server) -> list[dict]:
    """Return the most memory that requests of 16 MiB add to the API process."""
    status = Path(f"/proc/{server.api_process()}/status")
    rng = np.random.default_rng(4)
    rows = [{"memory": "one detector", "body MiB": 0.0, "MiB": _mib(status, "VmRSS"), "x body": 0}]
    for kind, n in ((OCTETS, 131_072), (JSON, 25_000)):
        X = rng.normal(size=(n, DIMENSION)).astype(np.float32)
        body = X.tobytes() if kind == OCTETS else server.body(X)
        wire = server.wire(body, Content_Type=kind, Accept=kind)
        before = _mib(status, "VmRSS")
        status.with_name("clear_refs").write_text("5")  # reset the high-water mark
        Connection(server).ask(wire)
        size, added = len(body) / 2**20, _mib(status, "VmHWM") - before
        rows.append({"memory": kind, "body MiB": size, "MiB": added, "x body": added / size})
    return rows


def _mib(status: Path, name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", status.read_text())
    assert match is not None
    return int(match[1]) / 1024


def starts(env: dict[str, str], rounds: int) -> list[dict]:
    """Time an API process from its start to its first score, with a champion in the store."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        with servers.api_alone(env, "observed"):
            taken.append(time.perf_counter() - started)
    return [{"start": "to the first score", "s": statistics.median(taken), "most": max(taken)}]


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements in turn")
    parser.add_argument("--quick", action="store_true", help="one round of a second")
    args = parser.parse_args()
    servers.begin()
    if args.quick:
        args.seconds, args.rounds = 1, 1
    results: dict[str, list[dict]] = {}

    def keep(what: str, rows: list[dict]) -> None:
        results[what] = rows
        print(report.table(rows), end="\n\n", flush=True)

    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder, artifact = Path(name), servers.champion().to_bytes()
        with servers.store(folder) as env:
            with servers.api(env, artifact) as server:
                keep("memory", memory(server))
                keep("slow", slow_peers(server, args))
            keep("start", starts(env, args.rounds))
            keep("observing", observing(env, args, folder))
            keep("processes", processes(env, args, folder))
        with servers.everything(folder, artifact) as server:
            rows = training(server, args)
    report.report("Scoring beside training", rows, args.output, **results)


if __name__ == "__main__":
    main()
