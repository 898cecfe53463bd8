"""The alert rules: each fires when it should and says what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service.domain.attention import KINDS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"
RULES = PROMETHEUS / "rules" / "anamnesis.yml"
OPERATIONS = ROOT / "service" / "api" / "page" / "templates" / "operations.html"
CASES = PROMETHEUS / "rules" / "anamnesis_test.yml"


def alerts() -> list[dict]:
    """Return every alert rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check(*command: str) -> None:
    """Run a checker that must find nothing; skip the test if it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: prometheus, prometheus-alertmanager)")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_exactly_the_expected_alerts_fire_in_each_case():
    """In each of promtool's cases exactly the listed alerts fire."""
    check("promtool", "test", "rules", str(CASES))


def test_every_alert_has_a_firing_and_a_silent_case():
    """Every alert is expected in at least one case, and absent in another."""
    expectations = [
        str(case["exp_samples"])
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["promql_expr_test"]
    ]
    for rule in alerts():
        fires = [f'"{rule["alert"]}"' in expected for expected in expectations]
        assert any(fires), rule["alert"]
        assert not all(fires), rule["alert"]


def test_prometheus_and_alertmanager_accept_the_configurations():
    """Prometheus and Alertmanager accept the shipped configurations."""
    check("promtool", "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    check("promtool", "check", "rules", str(RULES))
    check("amtool", "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_severity_summary_and_advice(rule: dict):
    """Each alert has a severity, a summary, and a description of more than one sentence."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 100


def test_the_guide_says_which_alert_belongs_to_which_line_of_the_status():
    """Each alert that needs a person and each kind of the status is in the guide's table."""
    table = re.findall(r"^\|.*\|$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    words = set(re.findall(r"\w+", " ".join(table)))
    for_people = {rule["alert"] for rule in alerts() if rule["labels"]["severity"] != "none"}
    assert for_people | set(KINDS) <= words


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_links_to_its_heading(rule: dict):
    """Each alert links to its heading on a page that the service of the composition shows."""
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "http://127.0.0.1:8000/operations"
    assert f'<h3 id="{anchor}">{rule["alert"]}</h3>' in OPERATIONS.read_text()
    of_detector = "$labels.detector" in rule["annotations"]["summary"]
    assert ("page_url" in rule["annotations"]) == of_detector
    steady = rule["alert"] in {"AnamnesisWatchdog", "AnamnesisIncidentNew", "AnamnesisMuted"}
    assert ("keep_firing_for" in rule) is not steady


def test_the_links_can_lead_to_another_address(tmp_path: Path):
    """`make runbooks` writes an address into the links; Prometheus accepts the rules."""
    rules = [
        Path("prometheus/rules/anamnesis.yml"),
        Path("kubernetes/overlays/monitoring/rules.yaml"),
    ]
    for file in rules:
        (tmp_path / "deploy" / file).parent.mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / file, tmp_path / "deploy" / file)
    for url in ("https://one.example/sense", "https://two.example"):  # it can be changed again
        make = ("make", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "runbooks", f"URL={url}")
        subprocess.run(make, check=True, capture_output=True)
        for file in rules:
            text = (tmp_path / "deploy" / file).read_text()
            links = re.findall("runbook_url: (.*)#", text)
            assert len(links) == len(alerts())
            assert set(links) == {f"{url}/operations"}
            pages = re.findall("page_url: (.*)/", text)
            assert len(pages) == sum("page_url" in rule["annotations"] for rule in alerts())
            assert set(pages) == {f"{url}/detectors"}
    check("promtool", "check", "rules", str(tmp_path / "deploy" / rules[0]))
