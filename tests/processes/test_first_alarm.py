"""From a CSV to the first alarm, with the commands of the docs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.demo import own_service, pump

README = Path(__file__).parents[2] / "README.md"
PAGE = Path(__file__).parents[2] / "docs" / "first-alarm.md"


@pytest.mark.timeout(900)
def test_the_commands_of_the_docs_find_a_pumps_faults(tmp_path):
    """The commands run unchanged on files with text and gaps, and each fault is an incident."""
    pump.write(tmp_path, days=3, judged_days=6)
    shown = re.search(r"<!-- first alarm -->(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    commands = re.findall(r"^\$ anamnesis (.*)$", shown[1], re.MULTILINE)
    assert len(commands) == 2
    same = re.findall(r"^\$ .venv/bin/anamnesis (.*)$", README.read_text(), re.MULTILINE)
    assert [words for words in same if words.startswith(("learn", "score"))] == commands
    printed = ""
    with own_service.running(tmp_path / "data", keep=False) as url:
        for words in commands:
            command = [sys.executable, "-m", "service.cli", *shlex.split(words), "--url", url]
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            printed = done.stdout
    incidents = [line for line in printed.splitlines() if line.startswith("incident")]
    for machine, leading in (("pump-a", "flow"), ("pump-b", "temperature")):
        assert any(f"of {machine}" in line and leading in line for line in incidents), printed
