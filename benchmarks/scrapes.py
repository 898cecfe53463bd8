"""How much a scrape of /metrics slows down requests, with the metrics of a thousand detectors."""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import servers
from benchmarks.on_demand import Asker
from benchmarks.serving_steady import at_rate

# Another process scrapes without a pause. It shares no interpreter lock with the measuring process.
SCRAPING = """
import sys, urllib.request
url, authorization = sys.argv[1:]
while True:
    request = urllib.request.Request(url, headers={"Authorization": authorization})
    print(len(urllib.request.urlopen(request).read()), flush=True)
"""


def measure(fill, artifact, detectors, seconds, rounds):
    """Return a row for a process alone and a row for one that shares its counts with others.

    `fill` puts detectors with this artifact into the store. `p99 ms` is the latency at 2,000
    requests/s while another process scrapes without a pause, `quiet p99 ms` without scrapes.
    """
    return [_measure_kind(fill, artifact, detectors, seconds, rounds, shared) for shared in (0, 1)]


def _measure_kind(fill, artifact, detectors, seconds, rounds, shared):
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder = Path(name)
        with servers.store(folder) as env:
            names = ["bench", *(f"other-{i}" for i in range(1, detectors))]
            asyncio.run(fill(env["ANAMNESIS_REDIS_URL"], names, 1, artifact))
            if shared:
                env["ANAMNESIS_METRICS_DIR"] = str(folder / "metrics")
            with servers.api(env, None) as server:
                while server.call("GET", f"/v1/detectors/{names[-1]}")["champion"] != 1:
                    time.sleep(0.05)
                ask = Asker(server)
                for detector in names:
                    ask(detector)  # so that each detector has its series
                rows = [_round(server, seconds) for _ in range(rounds)]
    row = {
        "detectors": detectors,
        "metrics": "shared folder" if shared else "one process",
        "page MB": rows[0]["page MB"],
        "scrape s": statistics.median(row["scrape s"] for row in rows),
        "quiet p99 ms": statistics.median(row["quiet"] for row in rows),
        "p99 ms": statistics.median(row["scraped"] for row in rows),
        "lost": sum(row["lost"] for row in rows),
    }
    # Both measurements of a round have the same other work on the machine.
    return row | {"x quiet": statistics.median(row["scraped"] / row["quiet"] for row in rows)}


def _round(server, seconds):
    quiet, lost = at_rate(server, seconds)
    with _scraped(server) as output:
        scraped, more = at_rate(server, seconds)
        sizes = [int(line) for line in output.read_text().split()]
    return {
        "quiet": quiet,
        "scraped": scraped,
        "lost": lost + more,
        "scrape s": seconds / max(1, len(sizes)),
        "page MB": max(sizes, default=0) / 1e6,
    }


@contextlib.contextmanager
def _scraped(server):
    """Scrape without a pause; yields the file that gets the size of each page."""
    url, key = f"http://127.0.0.1:{server.port}/metrics", server.headers["Authorization"]
    with tempfile.NamedTemporaryFile() as output:
        command = [sys.executable, "-c", SCRAPING, url, key]
        with servers.process(command, stdout=output):
            while not Path(output.name).stat().st_size:
                time.sleep(0.01)
            yield Path(output.name)
