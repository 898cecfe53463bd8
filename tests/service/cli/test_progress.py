"""The progress that a command writes to stderr."""

import pytest

from service.cli import progress


@pytest.fixture(autouse=True)
def each_step(monkeypatch):
    """Write a line at each step, on a clock that moves a second at each look."""
    seconds = iter(range(1000))
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))


def test_work_that_was_done_before_does_not_shorten_the_estimate(capsys):
    """A continued command shows where it is, and estimates the rest from its own speed."""
    shown = progress.ShownProgress("scoring")
    shown.skip(0.5, 500)
    shown.at(0.6, 600)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scoring: 50 %, done before"
    assert lines[1].startswith("scoring: 60 %, ")
    seconds = int(lines[1].removeprefix("scoring: 60 %, ").removesuffix(" s left"))
    assert seconds in range(4, 13)  # one to three seconds for a tenth: four to twelve for the rest


def test_waiting_and_a_first_moment_give_no_estimate(capsys):
    """The time in which a command waits does not count, nor does a share below one per cent."""
    shown = progress.ShownProgress("retraining")
    for _ in range(40):
        shown.at(0.0, waits=", queued until a worker is free")
    shown.at(0.0003)
    shown.at(0.5)
    *_, beginning, middle = capsys.readouterr().err.splitlines()
    assert beginning == "retraining: 0 %"
    seconds = int(middle.removeprefix("retraining: 50 %, ").removesuffix(" s left"))
    assert seconds < 10
