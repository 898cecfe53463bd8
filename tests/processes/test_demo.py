"""The demonstration runs against a real service, with fewer digits than people see."""

import os
import re
import signal

import pytest

from service.cli.demo import run as demo
from service.client import Client
from tests.waiting import alive


@pytest.fixture
def two_digits(monkeypatch):
    """Learn only two digits: the same steps in a fraction of the time."""
    monkeypatch.setattr(demo, "TASKS", range(1, 3))
    for config in demo.ARMS.values():
        monkeypatch.setitem(config, "model", {"epochs": 5})


@pytest.mark.usefixtures("two_digits")
def test_the_demonstration_runs_its_own_service(tmp_path, capsys):
    """The demonstration starts a service, learns over HTTP, prints its conclusion and stops it."""
    demo.run(tmp_path, None, 0, keep=False)
    printed = capsys.readouterr().out
    assert len(re.findall(r"^1(?:\.\.2)? +(?:replay|finetune) ", printed, re.MULTILINE)) == 4
    assert "after digit 2" in printed
    assert (tmp_path / "auroc.png").exists() == ("saved" in printed)
    assert not (tmp_path / "data").exists()


@pytest.mark.thorough
@pytest.mark.usefixtures("two_digits")
def test_with_keep_the_service_stays(tmp_path, capsys):
    """With --keep the service stays, and the output says how to use and stop it."""
    demo.run(tmp_path, None, 0, keep=True)
    printed = capsys.readouterr().out
    pid = int(re.search(r"kill (\d+)", printed)[1])
    url = re.search(r"goes on at (\S+)", printed)[1]
    try:
        demo.run(tmp_path, url, 0, keep=False)
        with Client(url) as client:
            assert client.detector("digits-replay")["champion"] == 2
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    assert not alive(pid)
