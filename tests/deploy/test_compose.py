"""The image and the composition are valid and closed to the outside, and their services work."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from redis import Redis as BlockingRedis
from redis.exceptions import ConnectionError as Refused

from service.processes.embedded_store import find_server
from service.store.connection import check_durability, connect
from tests.deploy.running import ANAMNESIS, call, free_port, learn, running
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PROCESSES = ("api-1", "api-2", "worker")


def check(tool: str, *arguments: str) -> None:
    """Run a checker of the test dependencies; it must find nothing."""
    beside = str(Path(sys.executable).parent)
    command = shutil.which(tool, path=beside) or shutil.which(tool)
    if command is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [command, *arguments], check=False, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_passes_hadolint():
    """The checker `hadolint` finds nothing in the Dockerfile."""
    check("hadolint", "Dockerfile")


def test_composition_is_valid():
    """docker-compose.yml satisfies the compose specification's schema."""
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_the_image_runs_as_a_numbered_user_and_not_as_root():
    """The last stage runs as a user with a number, which an orchestrator can check."""
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    users = [line.split()[1] for line in last.splitlines() if line.startswith("USER ")]
    assert users
    assert int(users[-1].partition(":")[0]) > 0


def test_api_processes_run_the_image_without_torch():
    """Replicas are built up to the stage `serving`, which installs no extra that has torch."""
    targets = {name: SERVICES[name]["build"]["target"] for name in PROCESSES}
    assert targets == {"api-1": "serving", "api-2": "serving", "worker": "full"}
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    (built,) = [stage for stage in stages if "AS serving-build" in stage]
    assert "torch" not in built
    assert "train.txt" not in built


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str):
    """Every published port is bound to the loopback interface."""
    for port in SERVICES[name].get("ports", ()):
        assert str(port).startswith("127.0.0.1:"), port


def test_training_cannot_starve_scoring():
    """The worker's CPU weight is a small part of a replica's; the store's is not."""
    assert SERVICES["worker"]["cpu_shares"] * 8 <= SERVICES["api-1"]["cpu_shares"]
    assert SERVICES["valkey"]["cpu_shares"] >= SERVICES["api-1"]["cpu_shares"]


def test_secrets_are_files_that_nobody_commits():
    """Every secret comes from a folder that git ignores, and Prometheus reads its own secret."""
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("deploy/secrets/")
    assert (ROOT / "deploy/secrets/.gitignore").read_text().splitlines() == ["*", "!.gitignore"]
    for name in ("api-1", "api-2"):
        environment = SERVICES[name]["environment"]
        files = {f"/run/secrets/{secret}" for secret in SERVICES[name]["secrets"]}
        assert {value for value in environment.values() if "/run/" in value} == files
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}


def test_prometheus_scrapes_every_replica():
    """The shipped targets are the composition's API services, with their port."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    replicas = {f"{name}:8000" for name in SERVICES if name.startswith("api-")}
    assert set(job["static_configs"][0]["targets"]) == replicas


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a local server with the composition's own flags; yield its port."""
    folder, port = tmp_path_factory.mktemp("valkey"), free_port()
    server, *flags = SERVICES["valkey"]["command"]
    assert server == "valkey-server"
    where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
    with (
        running([*find_server(), *flags, *where], folder / "log"),
        BlockingRedis(port=port) as client,
    ):

        def answers() -> bool:
            try:
                return bool(client.ping())
            except (Refused, OSError):  # not listening yet
                return False

        wait_for(answers, "store", folder / "log")
        yield port


@pytest.mark.anyio
async def test_store_is_durable(valkey: int):
    """With the composition's flags the store passes the service's own check."""
    client = await connect(f"redis://127.0.0.1:{valkey}/0")
    assert await check_durability(client) == ()
    await client.aclose()


def start(name: str, valkey: int, folder: Path, stack: ExitStack) -> str:
    """Start a service of the composition as a local process; return its URL."""
    command = SERVICES[name]["command"]
    assert command[0] == "anamnesis"
    port = free_port()
    settings = {
        key: str(value)
        .replace("//valkey:6379", f"//127.0.0.1:{valkey}")
        .replace("/run/secrets", str(folder))
        for key, value in SERVICES[name]["environment"].items()
    }
    here = {"ANAMNESIS_HOST": "127.0.0.1", "ANAMNESIS_PORT": str(port)}
    stack.enter_context(
        running([*ANAMNESIS, *command[1:]], folder / f"{name}.log", {**settings, **here})
    )
    return f"http://127.0.0.1:{port}"


def test_one_replica_scores_with_what_the_other_received(valkey: int, tmp_path: Path):
    """A batch sent to one replica is learned by the worker and scored by the other replica."""
    logs = [tmp_path / f"{name}.log" for name in PROCESSES]
    rng = np.random.default_rng(0)
    for name in COMPOSE["secrets"]:
        (tmp_path / name).write_text(f"{name:-<40}\n")
    admin, metrics = (f"{name:-<40}" for name in ("admin_key", "metrics_key"))
    with ExitStack() as stack:
        first, second, _ = (start(name, valkey, tmp_path, stack) for name in PROCESSES)
        for url in (first, second):
            wait_for(lambda url=url: call("GET", f"{url}/healthz")[0] == 200, "start", *logs)
        learn(first, "pump", rng.normal(size=(200, 3)).tolist(), *logs, key=admin)
        probe = {"vectors": [[0.0, 0.0, 0.0], [50.0, -50.0, 50.0]]}
        url = f"{second}/v1/detectors/pump"
        answer = wait_for(lambda: _scored(url, probe, admin), "second replica", *logs)
        assert answer["version"] == 1
        assert answer["is_anomaly"] == [False, True]
        assert call("GET", f"{second}/metrics")[0] == 401
        assert call("GET", f"{second}/v1/detectors", key=metrics)[0] == 403
        with httpx.Client(headers={"authorization": f"Bearer {metrics}"}) as prometheus:
            assert prometheus.get(f"{second}/metrics").status_code == 200


def _scored(url: str, body: object, key: str) -> dict | None:
    status, answer = call("POST", f"{url}/score", body, key=key)
    return answer if status == 200 else None
