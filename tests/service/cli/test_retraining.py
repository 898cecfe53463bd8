"""Waiting for a retraining, against a stub of the service."""

from typing import Any

import pytest
import typer

from service.cli import progress, retraining

OUTCOME = {"outcome": "promoted", "version": 2}


class Client:
    """A service whose retraining is finished at the `done`th request."""

    def __init__(self, *, worker: bool, done: int, state: str = "running") -> None:
        self.worker, self.left, self.state = worker, done, state

    def retrain(self, _: str, wait: float) -> None:
        assert wait > 0

    def health(self) -> dict[str, Any]:
        return {"status": "ready", "worker": self.worker}

    def detector(self, _: str) -> dict[str, Any]:
        self.left -= 1
        state = self.state if self.left > 0 else "idle"
        share = 0.5 if state == "running" else 0.0
        return {"retraining": {"state": state, "progress": share}, "last_retraining": OUTCOME}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Poll without a pause."""
    monkeypatch.setattr(retraining, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(retraining, "_NOBODY_SECONDS", 0.01)


def test_the_command_waits_for_the_outcome():
    """The command polls until the outcome is there."""
    assert retraining.retrain(Client(worker=True, done=50), "pump", 60) == OUTCOME


def test_piped_output_shows_the_progress(monkeypatch, capsys):
    """Piped output shows the progress and the remaining time line by line."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    retraining.retrain(Client(worker=True, done=3), "pump", 60)
    assert "retraining pump: 50 %, 0 s left" in capsys.readouterr().err


def test_a_retraining_that_has_not_begun_is_called_queued(monkeypatch, capsys):
    """While all workers train other detectors, the progress says so."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    retraining.retrain(Client(worker=True, done=3, state="queued"), "pump", 60)
    assert "retraining pump: 0 s, queued until a worker is free" in capsys.readouterr().err


def test_without_a_worker_the_command_ends(capsys):
    """If the service has no worker, the command ends and says so."""
    with pytest.raises(typer.Exit) as ended:
        retraining.retrain(Client(worker=False, done=10**9), "pump", 60)
    assert ended.value.exit_code == 1
    assert "no worker runs, and pump waits for one" in capsys.readouterr().err


def test_the_command_ends_after_its_wait(capsys):
    """After `--wait` the command ends, and the retraining continues."""
    with pytest.raises(typer.Exit):
        retraining.retrain(Client(worker=True, done=10**9), "pump", 0.05)
    assert "was not done in 0.05 s; it goes on" in capsys.readouterr().err
