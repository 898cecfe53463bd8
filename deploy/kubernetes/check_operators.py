"""Check the documents for KEDA and Prometheus' operator by models made from their schemas.

    python check_operators.py RENDERED.yaml

Takes cloudcoil-models-keda and cloudcoil-models-prometheus-operator; `make kubernetes` has them.
"""  # noqa: INP001 - a script beside the files, not a package

import sys
from pathlib import Path

import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as monitoring

GROUPS = {"keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": monitoring}


def check(document: dict[str, object]) -> None:
    """Raise ValueError if the document is invalid for its operator or has an unknown field."""
    model = getattr(GROUPS[str(document["apiVersion"])], str(document["kind"]))
    read = model.model_validate(document).model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True
    )
    if read != document:
        raise ValueError(f"{document['kind']}: read as {read}, written as {document}")


def main() -> None:
    """Check each document in a file that belongs to one of the operators."""
    found = [
        document
        for document in yaml.safe_load_all(Path(sys.argv[1]).read_text())
        if document["apiVersion"] in GROUPS
    ]
    for document in found:
        check(document)
        sys.stdout.write(f"{document['kind']} {document['metadata']['name']}: as its schema says\n")


if __name__ == "__main__":
    main()
