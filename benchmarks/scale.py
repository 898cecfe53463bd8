"""The cost of a request with a thousand loaded detectors or ten thousand stored versions.

One API process has 1, 10, 100 or 1,000 detectors, each with its own champion in memory. Then it has
one detector with 1 to 10,000 versions in its history, all stored by the registry. For each case the
table has the processor time of a request, its latency, the process's memory, and the time to the
first score. Two more tables follow: how much scrapes slow down requests (`scrapes`), and champions
that are loaded on demand (`on_demand`), with 10,000 stored detectors of which 1,000 are in use.

    python -m benchmarks.scale --output benchmarks/results/scale.json
"""

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import on_demand, report, scrapes, servers

DETECTORS, VERSIONS = (1, 10, 100, 1000), (1, 100, 1000, 10_000)
STORED, HOT, ASKED = 10_000, 1000, 20_000
AT_ONCE = 16


async def fill(url, names, versions, artifact):
    """Give each of `names` a champion, and the first of them `versions` versions."""
    from models import Version
    from service.domain.detector_config import parse
    from service.domain.version_record import describe
    from service.store.connection import connect
    from service.store.detectors import Detectors
    from service.store.registry import Registry

    redis = await connect(url, deadline=60.0)
    detectors, registry = Detectors(redis, max_detectors=len(names) + 1), Registry(redis)
    record = describe(Version.from_bytes(artifact), {"fpr": 0.01}, None)

    async def create(name):
        await detectors.put(name, parse({"dimension": servers.DIMENSION}))
        await registry.import_version(name, artifact, record)
        await registry.set_champion(name, 1)

    for i in range(0, len(names), AT_ONCE):
        await asyncio.gather(*map(create, names[i : i + AT_ONCE]))
    for i in range(1, versions, AT_ONCE):
        more = range(i, min(i + AT_ONCE, versions))
        numbers = await asyncio.gather(
            *(registry.import_version(names[0], artifact, record) for _ in more)
        )
        # Every eighth version was champion for a while, as in a history with rejected candidates.
        for number in numbers[::8]:
            await registry.set_champion(names[0], number)
    await registry.prune(names[0])
    await redis.aclose()


def measure(detectors, versions, artifact, seconds):
    """Return one row: the cost of a request with this many detectors and versions."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder = Path(name)
        with servers.store(folder) as env:
            names = ["bench", *(f"other-{i}" for i in range(1, detectors))]
            asyncio.run(fill(env["ANAMNESIS_REDIS_URL"], names, versions, artifact))
            start = time.perf_counter()
            with servers.api(env, None) as server:
                first = time.perf_counter() - start
                deadline = time.monotonic() + 60
                while not loaded(server, names[-1]) and time.monotonic() < deadline:
                    time.sleep(0.05)
                load = servers.load(server, 64, seconds, servers.one_vector(), folder)
                grown = on_demand.memory(server)
    return {
        "detectors": detectors,
        "versions": versions,
        "requests/s": round(load.rate),
        "cpu us": load.cpu,
        "p50 ms": load.p50,
        "p99 ms": load.p99,
        "failed": load.failed,
        "api MiB": grown,
        "first score s": first,
    }


def loaded(server, name):
    """Return whether the last detector serves; then all before it serve too."""
    status = server.call("GET", f"/v1/detectors/{name}")
    return status["champion"] is not None


def on_demand_rows(requests, clients, *, quick):
    """Return two rows, for many small champions and a few of the default score, and two curves.

    The curves are the resident memory of the API process over time, in each of the two cases.
    """
    from models import Config, train

    def filled(url, names, artifact):
        return fill(url, names, 1, artifact)

    less = 10 if quick else 1
    rows, readings = [], []
    X = np.random.default_rng(0).normal(size=(4000, servers.DIMENSION)).astype(np.float32)
    auto = train(None, X, Config()).to_bytes()
    small = train(None, X, Config(kind="mahalanobis")).to_bytes()
    plans = (("mahalanobis", small, STORED, HOT), ("auto", auto, STORED // 25, HOT // 10))
    for name, data, stored, hot in plans:
        asked = stored // less, hot // less, requests // less, clients
        row, over_time = on_demand.measure(filled, data, *asked)
        rows.append({"what": name, "artifact kB": round(len(data) / 1000)} | row)
        readings += [{"what": name} | reading for reading in over_time]
    return rows, readings


def draw(rows, path):
    """Draw the processor time of a request over detectors and over versions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name, other in zip(
        figure.subplots(1, 2), ("detectors", "versions"), ("versions", "detectors"), strict=True
    ):
        points = [row for row in rows if row[other] == 1]
        axes.plot([row[name] for row in points], [row["cpu us"] for row in points], marker="o")
        axes.set(xscale="log", ylim=(0, None), xlabel=name, ylabel="us of a request")
    figure.savefig(path, dpi=120)


def main():
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each load")
    parser.add_argument("--quick", action="store_true", help="1 and 100 detectors and versions")
    parser.add_argument("--only", choices=("memory", "demand", "scrape"), help="the only table")
    parser.add_argument("--requests", type=int, default=ASKED, help="requests on demand")
    parser.add_argument("--clients", type=int, default=1, help="clients on demand")
    args = parser.parse_args()
    servers.begin()
    artifact = servers.champion().to_bytes()
    if args.only == "demand":
        rows, readings = on_demand_rows(args.requests, args.clients, quick=args.quick)
        report.report("On demand", rows, args.output, {"Memory over time": readings})
        return
    counted, rounds = (100, 2) if args.quick else (1000, 5)
    if args.only == "scrape":
        rows = scrapes.measure(fill, artifact, counted, args.seconds, rounds)
        report.report("Scrapes", rows, args.output)
        return
    detectors, versions = ((1, 100), (1, 100)) if args.quick else (DETECTORS, VERSIONS)
    pairs = [(d, 1) for d in detectors] + [(1, v) for v in versions if v > 1]
    rows = [measure(d, v, artifact, args.seconds) for d, v in pairs]
    for row in rows:
        row["x first"] = row["cpu us"] / rows[0]["cpu us"]
    further = {}
    if not args.only:
        further["Scrapes"] = scrapes.measure(fill, artifact, counted, args.seconds, rounds)
        further["On demand"], further["Memory over time"] = on_demand_rows(
            args.requests, args.clients, quick=args.quick
        )
    report.report("Scale", rows, args.output, further, bytes=len(artifact))
    if args.output is not None:
        draw(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
