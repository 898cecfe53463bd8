"""What tests of metrics share."""

import pytest
from prometheus_client import values


@pytest.fixture(autouse=True)
def _numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test's metrics count in the folder that another test's process shares."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
