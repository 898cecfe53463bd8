"""Workers that follow the work: a scaler, in place of KEDA, reads `GET /v1/work`.

Many detectors are due at almost the same time, some with much more to learn than others. The scaler
reads how many detectors are due or running, as KEDA's metrics-api scaler does. It keeps one worker
process for each of them, within its bounds. It stops a worker with SIGTERM. All batches must be
learned once, and no training may be interrupted.

    python -m benchmarks.autoscale --detectors 100 --workers 1 2 --output results/autoscale.json
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import report, servers

LOOK_SECONDS = 0.5
LEAST, COLUMNS, SHARE = 40, 6, 2_000  # LEAST, SHARE: the fewest and the most rows of a batch
WORKER = [sys.executable, "-c", "from service.cli.__main__ import main; main()", "worker"]


class Workers:
    """The worker processes: as many as wanted; the youngest is stopped first."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._running: list[subprocess.Popen] = []
        self._leaving: list[subprocess.Popen] = []
        self.started = 0

    def scale(self, wanted: int) -> int:
        """Start or stop workers until `wanted` run; return how many run."""
        while len(self._running) < wanted:
            self._running.append(subprocess.Popen(WORKER, env=self._env, stdout=subprocess.DEVNULL))
            self.started += 1
        while len(self._running) > wanted:
            leaving = self._running.pop()
            leaving.send_signal(signal.SIGTERM)
            self._leaving.append(leaving)
        return len(self._running)

    def close(self) -> list[int]:
        """Stop all workers; return their exit statuses."""
        self.scale(0)
        return [process.wait(300) for process in self._leaving]


def fall_due(server: servers.Server, detectors: int, kind: str) -> dict[str, int]:
    """Create the detectors and send each its first batch; return each one's number of rows."""
    rng, sent = np.random.default_rng(0), dict[str, int]()
    for i in range(detectors):
        name = f"pump-{i}"
        retrain = {"min_vectors": LEAST, "max_age_seconds": None}
        config = {"kind": kind, "retrain": retrain, "incident": None}
        server.call("PUT", f"/v1/detectors/{name}", json.dumps(config).encode())
        rows = rng.normal(size=(max(LEAST, SHARE // (i + 1)), COLUMNS))  # sizes follow Zipf's law
        body = json.dumps({"vectors": rows.tolist()}).encode()
        server.call("POST", f"/v1/detectors/{name}/normal", body)
        sent[name] = len(rows)
    return sent


def measure(detectors: int, kind: str, most: int, artifact: bytes) -> dict[str, object]:
    """Return one row: the time until all is learned with at most this many workers."""
    with (
        tempfile.TemporaryDirectory(prefix="anamnesis-") as folder,
        contextlib.ExitStack() as stack,
    ):
        env = stack.enter_context(servers.store(Path(folder)))
        env["ANAMNESIS_MAX_DETECTORS"] = str(detectors + 1)
        server = stack.enter_context(servers.api(env, artifact, core=None))
        sent = fall_due(server, detectors, kind)
        workers, seen, began = Workers(env), 0, time.monotonic()
        try:
            while True:
                work = server.call("GET", "/v1/work")
                if not work["due"] + work["running"]:
                    break
                seen = max(seen, workers.scale(min(most, max(1, work["due"] + work["running"]))))
                time.sleep(LOOK_SECONDS)
            seconds = time.monotonic() - began
        finally:
            ended = workers.close()
        statuses = {name: server.call("GET", f"/v1/detectors/{name}") for name in sent}
    learned = {name: status["learned"] for name, status in statuses.items()}
    return {
        "detectors": detectors,
        "kind": kind,
        "workers at most": most,
        "workers seen": seen,
        "started": workers.started,
        "seconds": round(seconds, 1),
        "learned": sum(learned[name] == sent[name] for name in sent),
        "versions each": max(status["generation"] for status in statuses.values()),
        "parked": sum(status["parked"] for status in statuses.values()),
        "ended well": sum(code == 0 for code in ended) == len(ended),
    }


def main() -> None:
    """Print a row for each number of workers."""
    parser = report.arguments(__doc__)
    parser.add_argument("--detectors", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="most workers")
    parser.add_argument("--kind", choices=("vae", "mahalanobis"), default="vae")
    args = parser.parse_args()
    # one more detector, which shows that the service answers
    artifact = servers.champion().to_bytes()
    rows = [measure(args.detectors, args.kind, most, artifact) for most in args.workers]
    report.report("Workers that follow the work", rows, args.output)


if __name__ == "__main__":
    main()
