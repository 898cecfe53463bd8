"""The Kubernetes files name each other, and of the service what it has."""

from pathlib import Path

import msgspec
import yaml

from service.api.documents import Work

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"


def documents(folder: Path) -> list[dict]:
    """Return what the kustomization in `folder` lists, read through those that it builds on."""
    found = []
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = (folder / name).resolve()
        found += documents(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    return found


def one(kind: str, name: str) -> dict:
    """Return the one document of this kind and name in the whole of it."""
    (found,) = (
        document
        for document in documents(FOLDER / "overlays" / "keda")
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return found


def test_workers_follow_what_the_service_says_of_its_work() -> None:
    """KEDA asks the Service's own path for fields that the answer has, with a key that is there."""
    spec = one("ScaledObject", "worker")["spec"]
    one("Deployment", spec["scaleTargetRef"]["name"])
    fields = {field.name for field in msgspec.structs.fields(Work)}
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["valueLocation"] in fields
        assert trigger["metadata"]["url"] == "http://api.anamnesis.svc.cluster.local/v1/work"
        (secret,) = one("TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"][
            "secretTargetRef"
        ]
        key = f"/run/secrets/anamnesis/{secret['key']}"
        (pod,) = one("Deployment", "api")["spec"]["template"]["spec"]["containers"]
        assert {"name": "ANAMNESIS_METRICS_KEY_FILE", "value": key} in pod["env"]
    names = {trigger["name"] for trigger in spec["triggers"]}
    assert set(spec["advanced"]["scalingModifiers"]["formula"].split(" + ")) == names
    assert one("Service", "api")["spec"]["ports"][0]["port"] == 80
