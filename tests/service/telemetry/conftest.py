"""Helpers for the tests of metrics."""

import pytest
from prometheus_client import values


@pytest.fixture(autouse=True)
def _own_metrics_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each test's metrics out of folders that other tests' processes use."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
