"""The alert rules: each fires when it should and says what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"
RULES = PROMETHEUS / "rules" / "anamnesis.yml"
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


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_links_to_its_heading(rule: dict):
    """Each alert links to its heading in the operations guide."""
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}
    assert anchor == rule["alert"].lower()
    steady = rule["alert"] in {"AnamnesisWatchdog", "AnamnesisIncidentNew", "AnamnesisMuted"}
    assert ("keep_firing_for" in rule) is not steady
