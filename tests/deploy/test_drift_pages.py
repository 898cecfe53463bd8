"""From drifting traffic to a page: the real service, Prometheus and Alertmanager."""

import json
import re
import shutil
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from tests.deploy.running import ANAMNESIS, call, free_port, learn, running
from tests.waiting import wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMETHEUS = shutil.which("prometheus")
ADMIN, METRICS = "a" * 40, "m" * 40


class Pager:
    """Receives webhook calls and remembers the alerts."""

    def __init__(self) -> None:
        self.alerts: list[dict] = []
        self.url = ""

    def firing(self, name: str) -> list[dict]:
        """Return the alerts of that name which were paged as firing."""
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
            heard.alerts.extend(json.loads(body)["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        heard.url = f"http://127.0.0.1:{server.server_port}/"
        yield heard
        server.shutdown()
        thread.join()


def watch(stack: ExitStack, folder: Path, target: str, hook: str) -> list[Path]:
    """Start both with what is shipped, but in a hurry and on free ports; return their logs."""
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
    # The key that `docker-compose.yml` hands to both.
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
    ready = f"http://127.0.0.1:{scraping}/api/v1/query?query=up"
    wait_for(lambda: call("GET", ready)[0] == 200, "prometheus", folder / "prometheus.log")
    return [folder / log for log in commands]


@pytest.mark.skipif(
    ALERTMANAGER is None or PROMETHEUS is None,
    reason="prometheus and alertmanager are not installed (Debian: prometheus-alertmanager)",
)
def test_drifting_traffic_pages_a_person(tmp_path: Path):
    """Normal traffic pages nobody; shifted traffic pages, naming the detector and what to do."""
    rng = np.random.default_rng(0)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    detector = f"{url}/v1/detectors/pump-7"
    up = [*ANAMNESIS, "up", "--port", str(port), "--data-dir", str(tmp_path / "data")]

    def score(shift: float) -> None:
        vectors = rng.normal(size=(50, 4)) + np.array([0, shift, 0, 0])
        status, answer = call("POST", f"{detector}/score", {"vectors": vectors.tolist()}, key=ADMIN)
        assert status == 200, answer

    with ExitStack() as stack:
        heard = stack.enter_context(pager())
        files = {}
        for name, secret in (("admin_key", ADMIN), ("metrics_key", METRICS)):
            (tmp_path / name).write_text(secret)
            files[f"ANAMNESIS_{name.upper()}_FILE"] = str(tmp_path / name)
        stack.enter_context(running(up, tmp_path / "up.log", files))
        logs = [tmp_path / "up.log"]
        wait_for(lambda: call("GET", f"{url}/healthz")[0] == 200, "service", *logs)
        # A new incident would hold the page for drift back.
        rows = rng.normal(size=(500, 4)).tolist()
        learn(url, "pump-7", rows, *logs, key=ADMIN, incidents=False)
        logs += watch(stack, tmp_path, f"127.0.0.1:{port}", heard.url)

        def normal_is_watched() -> bool:
            score(0.0)
            drift = call("GET", f"{detector}/drift", key=ADMIN)[1]
            return bool(drift["state"] == "none" and drift.get("updated_at"))

        wait_for(normal_is_watched, "a drift verdict", *logs)
        wait_for(lambda: heard.firing("AnamnesisWatchdog"), "the watchdog", *logs)
        assert not heard.firing("AnamnesisScoreDrift")
        assert not heard.firing("AnamnesisWorkerAbsent")

        def paged() -> list[dict]:
            score(4.0)
            return heard.firing("AnamnesisScoreDrift")

        alert, *_ = wait_for(paged, "the page", *logs)
        assert alert["labels"]["detector"] == "pump-7"
        assert alert["labels"]["severity"] == "warning"
        assert "/v1/detectors/pump-7/drift" in alert["annotations"]["description"]
        assert call("GET", f"{detector}/drift", key=ADMIN)[1]["state"] == "new_regime"
        scrape = urllib.request.Request(f"{url}/metrics")
        scrape.add_header("Authorization", f"Bearer {METRICS}")
        with urllib.request.urlopen(scrape, timeout=10) as page:
            exported = page.read().decode()
        rules = (DEPLOY / "prometheus" / "rules" / "anamnesis.yml").read_text()
        for metric in set(re.findall(r"anamnesis_[a-z_]+", rules)):
            assert f"# TYPE {metric} " in exported, metric
