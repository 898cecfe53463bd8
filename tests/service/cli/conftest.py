"""Every test of the command line gets a home directory of its own."""

import pytest


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path) -> None:
    """Let `learn` remember what it sent in the test's folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
