"""From traffic to a page: the real service, its webhook, Prometheus and Alertmanager."""

import hashlib
import hmac
import json
import re
import shutil
import signal
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from redis import Redis

from service.store.redis_keys import WORKERS
from tests.deploy.running import ANAMNESIS, call, free_port, learn, running
from tests.waiting import wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMETHEUS = shutil.which("prometheus")
ADMIN, METRICS, SECRET = "a" * 40, "m" * 40, "s" * 40
EVALUATIONS = 3  # evaluations of every rule; an alert that does not fire in them will not fire


class Pager:
    """Receives what Alertmanager and the service send, and keeps it.

    `alerts` are Alertmanager's; `events` are the service's CloudEvents with valid signatures.
    """

    def __init__(self) -> None:
        self.alerts: list[dict] = []
        self.events: list[dict] = []
        self.url = ""

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        """Receive one call."""
        if "webhook-id" not in headers:
            self.alerts.extend(json.loads(body)["alerts"])
            return
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        version, _, signature = headers["webhook-signature"].partition(",")
        assert (version, b64decode(signature)) == ("v1", expected)
        self.events.append(json.loads(body))

    def firing(self, name: str) -> list[dict]:
        """Return the alerts of that name that were paged as firing."""
        return [
            alert
            for alert in list(self.alerts)
            if alert["labels"]["alertname"] == name and alert["status"] == "firing"
        ]


@contextmanager
def pager() -> Iterator[Pager]:
    """Listen on a free port of the loopback interface."""
    heard = Pager()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.take(self.headers, body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        heard.url = f"http://127.0.0.1:{server.server_port}/"
        yield heard
        server.shutdown()
        thread.join()


def watch(stack: ExitStack, folder: Path, target: str, hook: str) -> tuple[str, list[Path]]:
    """Start Prometheus and Alertmanager as shipped, but with short times and on free ports.

    Returns the URL of Prometheus, and the logs of both.
    """
    alerting, scraping = free_port(), free_port()
    routes = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    for route in (routes["route"], *routes["route"]["routes"]):
        route.update(group_wait="0s", group_interval="1s")
    for receiver in routes["receivers"]:
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = hook
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))

    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "anamnesis.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))

    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s"
    )
    config["rule_files"] = ["rules.yml"]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
        f"127.0.0.1:{alerting}"
    ]
    (job,) = config["scrape_configs"]
    job["static_configs"][0]["targets"] = [target]
    # The key that `docker-compose.yml` gives both.
    assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}
    job["authorization"]["credentials_file"] = str(folder / "metrics_key")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    commands = {
        "alertmanager.log": [
            str(ALERTMANAGER),
            "--config.file=alertmanager.yml",
            "--storage.path=alerts",
            f"--web.listen-address=127.0.0.1:{alerting}",
            "--cluster.listen-address=",
        ],
        "prometheus.log": [
            str(PROMETHEUS),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=metrics",
            f"--web.listen-address=127.0.0.1:{scraping}",
        ],
    }
    for log, command in commands.items():
        stack.enter_context(running(command, folder / log))
    url = f"http://127.0.0.1:{scraping}/api/v1"
    ready = f"{url}/query?query=up"
    wait_for(lambda: call("GET", ready)[0] == 200, "prometheus", folder / "prometheus.log")
    return url, [folder / log for log in commands]


@dataclass
class Deployed:
    """The service at `url`, watched by Prometheus at `prometheus`, and the pager."""

    url: str
    service: psutil.Process
    data: Path
    heard: Pager
    logs: list[Path]
    prometheus: str = ""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer to an admin's request."""
        status, answer = call(method, f"{self.url}{path}", body, key=ADMIN)
        assert status in {200, 202}, answer
        return answer

    def wait(self, check: Callable[[], Any], awaited: str) -> Any:
        """Wait until `check` returns a true value; return it."""
        return wait_for(check, awaited, *self.logs)

    def wait_for_evaluations(self) -> None:
        """Wait until every rule was evaluated EVALUATIONS more times."""

        def evaluations() -> dict[str, str]:
            groups = call("GET", f"{self.prometheus}/rules")[1]["data"]["groups"]
            return {group["name"]: group["lastEvaluation"] for group in groups}

        for _ in range(EVALUATIONS):
            before = evaluations()

            def moved(before: dict[str, str] = before) -> bool:
                return all(evaluations()[name] != at for name, at in before.items())

            self.wait(moved, "rules to be evaluated")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Start the service with keys and a webhook, a detector with a version, and its monitoring."""
    if ALERTMANAGER is None or PROMETHEUS is None:
        pytest.skip("no prometheus or alertmanager here (Debian: prometheus-alertmanager)")
    folder, port = tmp_path_factory.mktemp("deployed"), free_port()
    data = folder / "data"
    up = [*ANAMNESIS, "up", "--port", str(port), "--data-dir", str(data)]
    with ExitStack() as stack:
        heard = stack.enter_context(pager())
        settings = {"ANAMNESIS_WEBHOOK_URL": heard.url, "ANAMNESIS_PUBLIC_URL": "http://here"}
        for name, secret in (
            ("admin_key", ADMIN),
            ("metrics_key", METRICS),
            ("webhook_secret", SECRET),
        ):
            (folder / name).write_text(secret)
            settings[f"ANAMNESIS_{name.upper()}_FILE"] = str(folder / name)
        process = stack.enter_context(running(up, folder / "up.log", settings))
        url, logs = f"http://127.0.0.1:{port}", [folder / "up.log"]
        deployment = Deployed(url, psutil.Process(process.pid), data, heard, logs)
        deployment.wait(lambda: call("GET", f"{url}/healthz")[0] == 200, "service")
        rows = deployment.rng.normal(size=(500, 4)).tolist()
        # A new incident would hold back the page for drift.
        learn(url, "pump-7", rows, *logs, key=ADMIN, incidents=False)
        learn(url, "hourly", rows, *logs, key=ADMIN)
        deployment.prometheus, more = watch(stack, folder, f"127.0.0.1:{port}", heard.url)
        deployment.logs += more
        yield deployment


def test_drifting_traffic_pages_a_person(deployed: Deployed):
    """Normal traffic pages nobody; shifted traffic pages, with the detector and what to do."""
    heard, pump = deployed.heard, "/v1/detectors/pump-7"

    def score(shift: float) -> None:
        vectors = deployed.rng.normal(size=(50, 4)) + np.array([0, shift, 0, 0])
        deployed.call("POST", f"{pump}/score", {"vectors": vectors.tolist()})

    def normal_is_watched() -> bool:
        score(0.0)
        drift = deployed.call("GET", f"{pump}/drift")
        return bool(drift["state"] == "none" and drift.get("updated_at"))

    deployed.wait(normal_is_watched, "a drift verdict")
    deployed.wait(lambda: heard.firing("AnamnesisWatchdog"), "the watchdog")
    assert not heard.firing("AnamnesisScoreDrift")
    assert not heard.firing("AnamnesisWorkerAbsent")

    def paged() -> list[dict]:
        score(4.0)
        return heard.firing("AnamnesisScoreDrift")

    alert, *_ = deployed.wait(paged, "the page")
    assert alert["labels"]["detector"] == "pump-7"
    assert alert["labels"]["severity"] == "warning"
    assert "/v1/detectors/pump-7/drift" in alert["annotations"]["description"]
    assert deployed.call("GET", f"{pump}/drift")["state"] == "new_regime"
    scrape = urllib.request.Request(f"{deployed.url}/metrics")
    scrape.add_header("Authorization", f"Bearer {METRICS}")
    with urllib.request.urlopen(scrape, timeout=10) as page:
        exported = page.read().decode()
    rules = (DEPLOY / "prometheus" / "rules" / "anamnesis.yml").read_text()
    for metric in set(re.findall(r"anamnesis_[a-z_]+", rules)):
        assert f"# TYPE {metric} " in exported, metric


def test_one_row_an_hour_pages_within_three_rows(deployed: Deployed):
    """Alertmanager pages for hourly anomalies, and the webhook reports the same signed incident."""
    now = time.time()
    for hours in (2, 1, 0):
        row = {"vectors": [[9.0, 9.0, 9.0, 9.0]], "timestamps": [now - hours * 3600]}
        deployed.call("POST", "/v1/detectors/hourly/score", row)
    pages = deployed.wait(lambda: deployed.heard.firing("AnamnesisIncidentOpen"), "the page")
    assert {alert["labels"]["detector"] for alert in pages} == {"hourly"}
    (event,) = deployed.wait(lambda: deployed.heard.events, "the webhook")
    incidents = deployed.call("GET", "/v1/detectors/hourly/incidents")["incidents"]
    assert event["type"] == "anamnesis.incident.opened"
    assert [incident["id"] for incident in incidents] == [event["subject"]]
    assert event["data"]["url"] == f"http://here/detectors/hourly/incidents/{event['subject']}"


def test_every_query_of_the_board_has_an_answer(deployed: Deployed):
    """Every query of Grafana's board has series in a real Prometheus."""
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "anamnesis.json").read_text())
    sources = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "anamnesis.yml").read_text()
    )
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {
        source["uid"] for source in sources["datasources"]
    }
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for query in queries:
        real = query.replace("$detector", ".*").replace("$__rate_interval", "1m")
        path = f"{deployed.prometheus}/query?{urllib.parse.urlencode({'query': real})}"

        def answered(path: str = path) -> list[Any]:
            status, answer = call("GET", path)
            assert status == 200, answer
            return list(answer["data"]["result"])

        deployed.wait(answered, query)


def test_a_dead_worker_pages_once(deployed: Deployed):
    """Without a worker one page comes; an open incident and old drift figures page nobody."""
    heard = deployed.heard
    deployed.wait(lambda: heard.firing("AnamnesisIncidentOpen"), "the earlier page")
    deployed.wait_for_evaluations()
    (worker,) = (
        child for child in deployed.service.children() if "service.worker" in str(child.cmdline())
    )
    before = len(heard.alerts)
    worker.send_signal(signal.SIGSTOP)
    try:
        with Redis(unix_socket_path=str(next(deployed.data.glob("**/*.sock")))) as store:
            for worker_id in store.zrange(WORKERS, 0, -1):  # as if it were silent for two minutes
                store.zadd(WORKERS, {worker_id: time.time() - 120})
        deployed.wait(lambda: heard.firing("AnamnesisWorkerAbsent"), "the page")
        deployed.wait_for_evaluations()
        new = [alert["labels"]["alertname"] for alert in heard.alerts[before:]
               if alert["status"] == "firing"]  # fmt: skip
        assert [alert for alert in new if alert != "AnamnesisWatchdog"] == ["AnamnesisWorkerAbsent"]
    finally:
        worker.send_signal(signal.SIGCONT)
