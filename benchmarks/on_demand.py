"""Champions on demand: many stored detectors, few of them in use, and a bound on memory.

A hot detector is scored often, a cold one rarely. First every hot detector and some cold ones are
scored once, which loads each from the store. Then hot ones are scored at random, and sometimes a
cold one. A cold champion is loaded from this machine's disk, where the first load cached it, and
another champion is unloaded. After the bound is reached and the states of all detectors were read
(200 a second), the process's memory should not grow.
"""

import asyncio
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import servers
from service.processes.process_table import resident_bytes

ROOM = 1.05  # in multiples of the memory of the hot ones
COLD = 5  # one of COLD requests is for a cold detector
READINGS = 10  # how often memory is read


def measure(fill, artifact, stored, hot, requests, clients):
    """Return a row of latencies (ms) for these numbers of detectors, and rows of memory (MiB).

    `fill(url, names, artifact)` gives each of `names` a champion.
    """
    from service.swap.loader import memory_bytes

    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder = Path(name)
        with servers.store(folder) as env:
            names = [*(f"d-{i}" for i in range(stored - 1)), "bench"]
            asyncio.run(fill(env["ANAMNESIS_REDIS_URL"], names, artifact))
            env |= {
                "ANAMNESIS_MAX_DETECTORS": str(stored + 1),
                "ANAMNESIS_LOADED_BYTES": str(int(ROOM * hot * memory_bytes(artifact))),
                "ANAMNESIS_CACHE_DIR": str(folder / "cache"),
                **servers.ONE_THREAD,
            }
            with servers.api(env, None) as server:
                with Askers(server, clients) as ask:
                    row, readings = _ask_for_all(server, ask, names, hot, requests)
                return {"stored": stored, **row}, readings


def _ask_for_all(server, ask, names, many, requests):
    hot, cold = names[:many], names[many : 2 * many]
    rng, since = random.Random(0), time.monotonic()
    row = {"hot": many, "start MiB": memory(server)}
    first = ask((*cold, *hot))
    row["full MiB"] = memory(server)
    of_hot, of_cold, readings = [], [], [_memory_now(server, since, 0)]
    for part in np.array_split(range(requests), READINGS):
        wanted = [rng.choice(hot) if i % COLD else cold[i // COLD % many] for i in part]
        for i, took in zip(part, ask(wanted), strict=True):
            (of_hot if i % COLD else of_cold).append(took)
        readings.append(_memory_now(server, since, int(part[-1]) + 1))
        # An interrupted run then still shows what it has measured.
        print(readings[-1], file=sys.stderr)
    counted = counters(server)
    return row | {
        "end MiB": readings[-1]["MiB"],
        "store p50 ms": quantile(first, 50),
        "store p99 ms": quantile(first, 99),
        "disk p50 ms": quantile(of_cold, 50),
        "disk p99 ms": quantile(of_cold, 99),
        "hot p50 ms": quantile(of_hot, 50),
        "hot p99 ms": quantile(of_hot, 99),
        "loaded": counted["anamnesis_loaded_champions"],
        "refused": ask.refused,
        "evicted": counted["anamnesis_champion_evictions_total"],
        "seconds": round(time.monotonic() - since),
    }, readings


def _memory_now(server, since, asked):
    seconds = round(time.monotonic() - since)
    return {"seconds": seconds, "requests": asked, "MiB": memory(server)}


class Asker:
    """Scores one vector with a detector over one connection; returns how long that took, ms."""

    def __init__(self, server):
        self._server, self._connection = server, servers.Connection(server)
        self.refused = 0
        self._body = server.body(np.zeros((1, servers.DIMENSION)))

    def __call__(self, name):
        """Score a vector with the detector of this name."""
        path = self._server.path.replace("bench", name)
        wire = self._server.wire(self._body).replace(self._server.path.encode(), path.encode(), 1)
        began = time.perf_counter()
        while not self._answered(wire):  # as a client that follows Retry-After
            self.refused += 1
            time.sleep(1.0)
            began = time.perf_counter()
        return (time.perf_counter() - began) * 1e3

    def _answered(self, wire):
        try:
            self._connection.ask(wire)
        except AssertionError:  # any other answer than 200
            self._connection = servers.Connection(self._server)
            return False
        return True


class Askers:
    """Scores one vector with each of many detectors, over several connections at once."""

    def __init__(self, server, clients):
        self._own, self._all, self._server = threading.local(), [], server
        self._pool = ThreadPoolExecutor(clients)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._pool.shutdown()

    def __call__(self, names):
        """Return how long each answer took, ms."""
        return list(self._pool.map(self._ask, names))

    @property
    def refused(self):
        """How many requests were refused and repeated."""
        return sum(asker.refused for asker in self._all)

    def _ask(self, name):
        if not hasattr(self._own, "asker"):
            self._own.asker = Asker(self._server)
            self._all.append(self._own.asker)
        return self._own.asker(name)


def quantile(values, percent):
    """Return a percentile, rounded."""
    return round(float(np.percentile(values, percent)), 2)


def memory(server):
    """Return the resident memory of the API process, MiB."""
    return round(resident_bytes(server.api_process()) / 2**20)


def counters(server):
    """Return the process's metrics, the sum over their labels."""
    url = f"http://127.0.0.1:{server.port}/metrics"
    request = urllib.request.Request(url, headers=dict(server.headers))
    with urllib.request.urlopen(request, timeout=600) as answer:
        lines = answer.read().decode().splitlines()
    totals = Counter()
    for series, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#")):
        totals[series.partition("{")[0]] += float(value)
    return totals
