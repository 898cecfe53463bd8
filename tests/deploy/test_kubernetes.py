"""The Kubernetes files refer to each other, and to what the service really has."""

from pathlib import Path

import msgspec
import yaml

from service.api.documents import Work

DEPLOY = Path(__file__).parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"


def documents(folder: Path) -> list[dict]:
    """Return the documents of the kustomization in `folder`, with those of its bases."""
    loaded = []
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text()).get("resources", ()):
        path = (folder / name).resolve()
        loaded += documents(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    return loaded


def document_of_kind(kind: str, name: str) -> dict:
    """Return the one document of this kind and name."""
    (match,) = (
        document
        for document in documents(FOLDER / "overlays" / "monitoring")
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return match


def test_keda_scales_workers_by_the_work_of_the_service() -> None:
    """KEDA asks the right path of the Service for fields that exist, with a key that exists."""
    spec = document_of_kind("ScaledObject", "worker")["spec"]
    document_of_kind("Deployment", spec["scaleTargetRef"]["name"])
    fields = {field.name for field in msgspec.structs.fields(Work)}
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["valueLocation"] in fields
        assert trigger["metadata"]["url"] == "http://api.anamnesis.svc.cluster.local/v1/work"
        (secret,) = document_of_kind("TriggerAuthentication", trigger["authenticationRef"]["name"])[
            "spec"
        ]["secretTargetRef"]
        key = f"/run/secrets/anamnesis/{secret['key']}"
        (pod,) = document_of_kind("Deployment", "api")["spec"]["template"]["spec"]["containers"]
        assert {"name": "ANAMNESIS_METRICS_KEY_FILE", "value": key} in pod["env"]
    names = {trigger["name"] for trigger in spec["triggers"]}
    assert set(spec["advanced"]["scalingModifiers"]["formula"].split(" + ")) == names
    assert document_of_kind("Service", "api")["spec"]["ports"][0]["port"] == 80


def test_prometheus_operator_gets_every_rule_and_scrapes_the_api() -> None:
    """Prometheus' operator gets every rule unchanged, and scrapes the Service with its key."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "anamnesis.yml").read_text())
    assert document_of_kind("PrometheusRule", "anamnesis")["spec"] == rules
    spec, service = (
        document_of_kind("ServiceMonitor", "anamnesis")["spec"],
        document_of_kind("Service", "api"),
    )
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    labels = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["labels"]
    assert labels[0]["pairs"][spec["jobLabel"]] == job["job_name"]
    key = endpoint["authorization"]["credentials"]
    secrets = document_of_kind("Deployment", "api")["spec"]["template"]["spec"]["volumes"][0][
        "secret"
    ]
    assert key == {"name": secrets["secretName"], "key": "metrics-key"}


def test_the_config_map_has_the_board_of_grafana() -> None:
    """The ConfigMap of the board is made from the file that Grafana reads elsewhere."""
    kustomization = yaml.safe_load((DEPLOY / "grafana" / "kustomization.yaml").read_text())
    (board,) = kustomization["configMapGenerator"][0]["files"]
    assert (DEPLOY / "grafana" / board).is_file()
    assert (
        "../../../grafana"
        in yaml.safe_load((FOLDER / "overlays" / "monitoring" / "kustomization.yaml").read_text())[
            "resources"
        ]
    )
