"""A rolling upgrade: API processes and workers of two revisions beside each other.

    python -m tests.deploy.rolling_upgrade [REVISION]       (`make rolling-upgrade REVISION=...`)

checks the revision out into a temporary git worktree, and runs both on one store. One detector
learns while workers of both revisions run, then with the old worker alone, then with the new one
alone. Batches go to the two APIs by turns, and both score all the time. The program ends with an
error if a request fails, if a batch is lost or learned twice, or if an API does not serve a version
that it can read. The default revision is the last tag or, without tags, the commit that wrote the
fixtures.
"""

import contextlib
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from service.processes.embedded_store import find_server
from tests.deploy.running import free_port, running
from tests.waiting import wait_for

HERE = Path(__file__).parents[2]
WRITTEN = "9d5a4cf"  # tests/fixtures/released_9d5a4cf.json.gz
RUN = """
import os, service
from pathlib import Path
# A path file in the environment may come before PYTHONPATH: then this would not be that release.
assert Path(service.__path__[0]).parent == Path(os.environ["PYTHONPATH"]), service.__path__
try:
    from service.cli.__main__ import main
except ModuleNotFoundError:  # the command line was one module
    from service.cli import main
main()
"""
ROWS, COLUMNS = 60, 3
CONFIG = {
    "kind": "mahalanobis",
    "dimension": COLUMNS,
    "admission": "accept",
    "retrain": {"min_vectors": None, "max_age_seconds": None},
}
PUMP = "/v1/detectors/pump"


@dataclass
class Release:
    """The processes of one checkout, on the store at `url`."""

    name: str
    checkout: Path
    url: str
    folder: Path
    port: int = field(default_factory=free_port)

    @contextlib.contextmanager
    def process(self, *command: str) -> Iterator[None]:
        """Run `anamnesis COMMAND` of this checkout until the end of the block."""
        log = self.folder / f"{self.name}-{command[0]}.log"
        env = {
            "PYTHONPATH": str(self.checkout),
            "ANAMNESIS_REDIS_URL": self.url,
            "ANAMNESIS_PORT": str(self.port),
            "ANAMNESIS_POLL_SECONDS": "0.2",
        }
        with running([sys.executable, "-P", "-c", RUN, *command], log, env):
            yield

    @contextlib.contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """Run an API process; yield a client of it once it is ready."""
        base = f"http://127.0.0.1:{self.port}"
        with (
            self.process("api"),
            httpx.Client(base_url=base, timeout=150, trust_env=False) as client,
        ):

            def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return client.get("/readyz").status_code == 200
                return False

            wait_for(ready, f"the {self.name} API", self.folder / f"{self.name}-api.log")
            yield client


class Scoring:
    """Asks every API for scores until it is stopped, and counts the answers."""

    def __init__(self, releases: list[Release]) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._score, args=(release,)) for release in releases
        ]

    def _score(self, release: Release) -> None:
        base = f"http://127.0.0.1:{release.port}"
        with httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
            while not self._done.wait(0.02):
                answer = client.post(f"{PUMP}/score", json={"vectors": [[0.0] * COLUMNS]})
                self.answers[release.name, answer.status_code] += 1

    def __enter__(self) -> "Scoring":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(60)


class Upgrade:
    """One detector learns under both releases; every check is an assertion that names the fault."""

    def __init__(self, old: httpx.Client, new: httpx.Client, folder: Path) -> None:
        self.old, self.new, self.folder = old, new, folder
        self._turns = itertools.cycle((old, new))
        self._rng = np.random.default_rng(0)
        self.sent = 0

    def learn(self) -> int:
        """Send a batch to the API whose turn it is, have it learned, and return the new version."""
        client = next(self._turns)
        rows = self._rng.normal(size=(ROWS, COLUMNS)).tolist()
        accepted = _ok(client.post(f"{PUMP}/normal", json={"vectors": rows}))["accepted"]
        assert accepted == ROWS, f"{accepted} of {ROWS} rows were accepted"
        self.sent += ROWS
        _ok(client.post(f"{PUMP}/retrain"))
        status: dict = {}

        def retraining_is_over() -> bool:
            status.update(_ok(client.get(PUMP)))
            return status["retraining"]["state"] == "idle"

        wait_for(retraining_is_over, "the retraining", *self.folder.glob("*-worker.log"))
        outcome = status["last_retraining"]
        assert outcome["outcome"] == "promoted", outcome
        return int(outcome["version"])

    def served(self, client: httpx.Client, version: int) -> list[float]:
        """Return the scores of some rows once `version` is served."""
        rows = np.random.default_rng(1).normal(size=(20, COLUMNS)).tolist()
        answer: dict[str, object] = {}

        def version_is_served() -> bool:
            answer.update(_ok(client.post(f"{PUMP}/score", json={"vectors": rows})))
            return answer["version"] == version

        wait_for(version_is_served, f"version {version}")
        return answer["scores"]  # type: ignore[return-value]

    def both_serve(self, version: int) -> None:
        """Check that both releases serve `version`, with equal scores."""
        old, new = self.served(self.old, version), self.served(self.new, version)
        np.testing.assert_allclose(old, new, rtol=1e-5)

    def nothing_lost(self) -> None:
        """Check that every row that was sent was learned exactly once."""
        status = _ok(self.new.get(PUMP))
        counts = {name: status[name] for name in ("learned", "buffered", "parked")}
        assert counts == {"learned": self.sent, "buffered": 0, "parked": 0}, (self.sent, counts)


def _ok(answer: httpx.Response) -> dict:
    assert answer.is_success, (answer.request.url, answer.status_code, answer.text)
    return answer.json()


@contextlib.contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Yield a worktree of `revision`; it is removed at the end of the block."""
    git, where = ["git", "-C", str(HERE), "worktree"], folder / "old"
    subprocess.run([*git, "add", "--quiet", "--detach", str(where), revision], check=True)
    try:
        yield where
    finally:
        subprocess.run([*git, "remove", "--force", str(where)], check=True)


def last_release() -> str:
    """Return the last tag, or the commit of the fixtures if there is none."""
    command = ["git", "-C", str(HERE), "describe", "--tags", "--abbrev=0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or WRITTEN


@contextlib.contextmanager
def store(folder: Path) -> Iterator[str]:
    """Run a durable store; yield its URL."""
    command = [*find_server(), "--port", "0", "--unixsocket", "s", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    with running(command, folder / "store.log"):
        wait_for((folder / "s").exists, "the store")
        yield f"unix://{folder}/s"


def upgrade(old: Release, new: Release) -> Scoring:
    """Run the upgrade; return the counts of answers to the score requests."""
    with old.api() as first, new.api() as second:
        _ok(first.put(PUMP, json=CONFIG))
        life = Upgrade(first, second, new.folder)
        with old.process("worker"):
            life.both_serve(life.learn())
            print("old worker: version 1 on both APIs")
            with Scoring([old, new]) as scoring:
                with new.process("worker"):
                    versions = [life.learn() for _ in range(4)]
                print(f"workers of both: versions {versions[0]} to {versions[-1]}")
                life.served(second, versions[-1])
        with Scoring([old, new]) as later, new.process("worker"):
            version = life.learn()
            life.served(second, version)
            serves = _ok(first.post(f"{PUMP}/score", json={"vectors": [[0.0] * COLUMNS]}))
            print(f"new worker: version {version} on the new API, {serves['version']} on the old")
        life.nothing_lost()
    scoring.answers += later.answers
    return scoring


def main() -> None:
    """Run the upgrade and print the counts."""
    revision = sys.argv[1] if len(sys.argv) > 1 else last_release()
    with tempfile.TemporaryDirectory(prefix="anamnesis-") as name:
        folder = Path(name)
        with checked_out(revision, folder) as checkout, store(folder) as url:
            began = time.monotonic()
            old, new = (
                Release(which, where, url, folder)
                for which, where in (("old", checkout), ("new", HERE))
            )
            scoring = upgrade(old, new)
    for (release, status), count in sorted(scoring.answers.items()):
        print(f"scores asked of the {release} API: {count} answers {status}")
    assert {status for _, status in scoring.answers} == {200}, scoring.answers
    seconds = time.monotonic() - began
    print(f"{revision} beside this tree: nothing failed, nothing was lost ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
