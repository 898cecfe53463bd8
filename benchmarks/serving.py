"""The speed of scoring one vector and a thousand, compared with peers started in the same run.

The server runs on one core and the load on another; `servers` describes the servers. MLServer 1.7
needs older libraries than this project. To have it in the table, install it (`pip install
mlserver==1.7.1`) in an environment of its own, and name the Python of that environment.

    python -m benchmarks.serving --mlserver peers/bin/python --output results/serving.json

To measure the cost of a change, it is loaded by turns with the commit before it. The column
`x before` is the median ratio of two successive loads:

    git worktree add ../before HEAD~1
    python -m benchmarks.serving --before ../before
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, servers
from benchmarks.servers import DIMENSION, OCTETS, Connection, Load, Server

CONNECTIONS = (1, 16, 64, 256)
ROWS = 1000
PEERS = ("bare", "naive", "mlserver", "before")


def one_vector(
    running: dict[str, Server], connections: tuple[int, ...], args: Any, folder: Path
) -> list[dict]:
    """Load every server by turns, in several rounds: ratios are medians over rounds.

    Each round starts with another server, because a load is slower after some servers than after
    others.
    """
    names = list(running)
    rows = []
    for number in connections:
        loads: dict[str, list[Load]] = {name: [] for name in running}
        for turn in range(args.rounds):
            first = turn * len(names) // args.rounds
            for name in names[first:] + names[:first]:
                server = running[name]
                load = servers.load(server, number, args.seconds, servers.one_vector(), folder)
                loads[name].append(load)
        rows += [_row(name, number, loads) for name in loads]
    return rows


def _row(name: str, connections: int, loads_by_server: dict[str, list[Load]]) -> dict:
    loads = loads_by_server[name]

    def ratio(other: str, attribute: str) -> float:
        pairs = zip(loads, loads_by_server[other], strict=True)
        return statistics.median(getattr(a, attribute) / getattr(b, attribute) for a, b in pairs)

    return {
        "server": name,
        "connections": connections,
        "requests/s": round(statistics.median(load.rate for load in loads)),
        "cpu us": statistics.median(load.cpu for load in loads),
        "p50 ms": statistics.median(load.p50 for load in loads),
        "p99 ms": statistics.median(load.p99 for load in loads),
        **{f"x {peer}": ratio(peer, "rate") for peer in PEERS if peer in loads_by_server},
        "p50 x bare": ratio("bare", "p50"),
        "failed": sum(load.failed for load in loads),
    }


def request_times(running: dict[str, Server], version: Any) -> list[dict]:
    """Time requests of a thousand vectors, one connection, beside judging alone."""
    X = np.random.default_rng(2).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    threshold = version.threshold_for({"fpr": 0.01})
    ours = running["anamnesis"]
    octets = ours.wire(X.tobytes(), Content_Type=OCTETS, Accept=OCTETS)
    asks = {
        "judging alone": lambda: version.judge(X, threshold),
        "octet-stream in and out": _asking(ours, octets),
        **{
            f"JSON in and out, {name}": _asking(running[name], running[name].wire(body(X)))
            for name, body in ((n, s.body) for n, s in running.items())
            if name in {"anamnesis", "naive", "mlserver"}
        },
    }
    times: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(60):
        for name, ask in asks.items():
            started = time.perf_counter()
            ask()
            times[name].append((time.perf_counter() - started) * 1e3)
    middle = {name: statistics.median(values) for name, values in times.items()}
    naive = middle["JSON in and out, naive"]
    return [
        {
            "1000 vectors": name,
            "ms": value,
            "x judging": value / middle["judging alone"],
            "naive / this": naive / value,
        }
        for name, value in middle.items()
    ]


def judging_times(versions: dict[str, Any]) -> list[dict]:
    """Time the judging of one, of 64 and of a thousand vectors, in this process.

    The figure is the least processor time of all turns, which other work disturbs least.
    """
    X = np.random.default_rng(2).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    rows = []
    for n, times in ((1, 20), (64, 3), (ROWS, 1)):
        taken: dict[str, list[float]] = {name: [] for name in versions}
        for _ in range(15 * times):
            for name, version in versions.items():
                version.judge(X[:n])
                started = time.process_time_ns()
                for _ in range(times):
                    version.judge(X[:n])
                taken[name].append((time.process_time_ns() - started) / times / n / 1e3)
        rows += [
            {
                "score": name,
                "vectors": n,
                "us each, least": min(microseconds),
                "us each": statistics.median(microseconds),
            }
            for name, microseconds in taken.items()
        ]
    return rows


def _asking(server: Server, wire: bytes) -> Callable[[], bytes]:
    connection = Connection(server)
    return lambda: connection.ask(wire)


def json_rates(running: dict[str, Server], args: Any, folder: Path) -> list[dict]:
    """Load servers with JSON of a thousand vectors, four connections."""
    X = np.random.default_rng(2).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    names = [name for name in ("naive", "mlserver", "anamnesis") if name in running]
    loads_by_server: dict[str, list[Load]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            loads_by_server[name].append(servers.load(running[name], 4, args.seconds, X, folder))
    rows = []
    for name, loads in loads_by_server.items():
        pairs = zip(loads, loads_by_server["naive"], strict=True)
        rows.append(
            {
                "JSON of 1000 vectors": name,
                "vectors/s": round(ROWS * statistics.median(load.rate for load in loads)),
                "cpu ms": statistics.median(load.cpu for load in loads) / 1e3,
                "x naive": statistics.median(a.rate / b.rate for a, b in pairs),
            }
        )
    return rows


def draw(rows: list[dict], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name in dict.fromkeys(row["server"] for row in rows):
        mine = [row for row in rows if row["server"] == name]
        x = [row["connections"] for row in mine]
        axes.plot(x, [row["requests/s"] for row in mine], marker="o", label=name)
    ticks = sorted({row["connections"] for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="requests/s")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each load")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each server")
    parser.add_argument("--mlserver", help="the Python of an environment with MLServer")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--quick", action="store_true", help="one second, one round, 1 and 64")
    args = parser.parse_args()
    servers.begin()
    connections = CONNECTIONS
    if args.quick:
        args.seconds, args.rounds, connections = 1, 1, (1, 64)
    version, default = (servers.champion(score, servers.NAMES) for score in ("elbo", "auto"))
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        running = {
            "bare": stack.enter_context(servers.peer(folder, "bare", servers.BARE)),
            "naive": stack.enter_context(servers.peer(folder, "naive", servers.NAIVE)),
        }
        if args.mlserver:
            running["mlserver"] = stack.enter_context(servers.mlserver(folder, args.mlserver))

        def started(version: Any) -> Server:
            env = stack.enter_context(servers.store(folder))
            return stack.enter_context(servers.api(env, version.to_bytes(), names=True))

        running["anamnesis"] = started(version)
        # Other loads get a process of their own, so that `anamnesis` has served what `before` has.
        other = started(version)
        running["anamnesis, by name"] = replace(other, body=servers.by_name)
        if args.before:
            earlier, tree = stack.enter_context(servers.store(folder)), args.before.resolve()
            running["before"] = stack.enter_context(
                servers.api(earlier, servers.champion_of(tree), names=True, tree=tree)
            )
        running["anamnesis, auto"] = started(default)
        # A request with any query takes the FastAPI route.
        running["anamnesis, route"] = replace(other, path=f"{servers.SCORE}?via=route")
        rows = one_vector(running, connections, args, folder)
        many = request_times(running, version)
        rates = json_rates(running, args, folder)
    alone = judging_times({"elbo": version, "auto": default})
    tables = {"many": many, "json": rates, "judged": alone}
    report.report("Serving, an API key in every request", rows, args.output, **tables)
    for table in tables.values():
        print(f"\n{report.table(table)}")
    if args.output is not None:
        draw(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
