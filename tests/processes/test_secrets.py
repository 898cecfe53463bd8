"""Real processes run with secrets, and no secret is in anything that they write."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError

from service.processes.embedded_store import find_server
from tests.certificates import signing_pair
from tests.conftest import DURABLE
from tests.deploy.running import ANAMNESIS, free_port, running
from tests.waiting import wait_for

PASSWORD = "store-password-4711"
ADMIN = "admin-key-" + "a" * 30
METRICS = "metrics-key-" + "m" * 30
WRONG = "anm_wrong-key-" + "w" * 30
MARKER = 918273645.0  # a number that clients send
NAME = "detector-of-nobody"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run a server with a password; yield its port and its process."""
    port = free_port()
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    command = [*find_server(), *where, *DURABLE, "--requirepass", PASSWORD]
    with running(command, tmp_path / "store.log") as process:

        def answers() -> bool:
            with BlockingRedis(port=port, password=PASSWORD) as client:
                try:
                    return bool(client.ping())
                except (RedisError, OSError):  # not listening yet
                    return False

        wait_for(answers, "the store", tmp_path / "store.log")
        yield port, process


def test_nothing_secret_is_in_the_logs(store: tuple[int, subprocess.Popen], tmp_path: Path) -> None:
    """No key, password or payload is in the logs, at any level and after any error."""
    port, server = store
    files = {"redis_url": f"redis://:{PASSWORD}@127.0.0.1:{port}/0", "admin_key": ADMIN}
    files |= {"metrics_key": METRICS}
    for name, secret in files.items():
        (tmp_path / name).write_text(secret + "\n")
    signing, _ = signing_pair(tmp_path, "signing")
    settings = {f"ANAMNESIS_{name.upper()}_FILE": str(tmp_path / name) for name in files}
    settings |= {"ANAMNESIS_LOG_LEVEL": "debug", "ANAMNESIS_SIGNING_KEY_FILE": str(signing)}
    api, url = free_port(), ""
    logs = {name: tmp_path / f"{name}.log" for name in ("api", "worker")}
    with ExitStack() as stack:
        where = ("--host", "0.0.0.0", "--port", str(api))
        stack.enter_context(running([*ANAMNESIS, "api", *where], logs["api"], settings))
        stack.enter_context(running([*ANAMNESIS, "worker"], logs["worker"], settings))
        url = f"http://127.0.0.1:{api}"
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False))

        def ready() -> bool:
            try:
                return http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, "the service", *logs.values())
        wait_for(lambda: "worker started" in logs["worker"].read_text(), "worker", *logs.values())
        created_key = _use(http)
        server.kill()
        wait_for(lambda: "store away" in logs["api"].read_text(), "the loss", *logs.values())
        wait_for(lambda: "store away" in logs["worker"].read_text(), "loss", *logs.values())
        _use(http)
    logged = "".join(log.read_text() for log in logs.values())
    key = "".join(signing.read_text().splitlines()[1:-1])
    for secret in (PASSWORD, ADMIN, METRICS, WRONG, created_key, key, str(int(MARKER)), NAME):
        assert secret not in logged, re.findall(f".*{re.escape(secret)}.*", logged)[:3]


def _use(http: httpx.Client) -> str:
    """Make requests that succeed and requests that fail; return a key that was created."""
    admin = {"authorization": f"Bearer {ADMIN}"}
    asked = {"name": "x", "scopes": ["score"]}
    created_key = (
        http.post("/v1/keys", headers=admin, json=asked).json().get("key", "none was made")
    )
    http.put("/v1/detectors/pump", headers=admin, json={})
    bodies = ({"vectors": [[MARKER, 1.0]]}, {"vectors": [[MARKER, None]]}, [MARKER], {"x": MARKER})
    for secret in (ADMIN, METRICS, WRONG, created_key):
        for header in ({"authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
            for path in ("pump/score", "pump/normal", "pump/feedback", f"{NAME}/score", "pump/no"):
                for body in bodies:
                    http.post(f"/v1/detectors/{path}", headers=header, json=body)
            http.get("/metrics", headers=header)
            http.get(f"/v1/detectors?key={secret}", headers=header)
    return created_key


def test_arguments_and_settings_of_children_have_no_secret(tmp_path: Path) -> None:
    """The arguments and settings that a process shows have no password and no key."""
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "admin").write_text(ADMIN)
    code = "from service.settings import Settings; s = Settings(); print(repr(s), s.environment())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "ANAMNESIS_REDIS_URL": "rediss://user@store:6379/0",
            "ANAMNESIS_REDIS_PASSWORD_FILE": str(tmp_path / "password"),
            "ANAMNESIS_ADMIN_KEY_FILE": str(tmp_path / "admin"),
        },
    )
    assert "rediss://user@store" in done.stdout
    assert PASSWORD not in done.stdout
    assert ADMIN not in done.stdout
