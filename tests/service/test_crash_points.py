"""Crash points."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service import crash_points

_ROOT = Path(__file__).parents[2]


def test_only_the_armed_passage_kills_the_process():
    """Only the n-th passage of the armed name kills the process, as `kill -9` does."""
    program = """
from service import crash_points
crash_points.arm("worker.training:3")
for i in range(5):
    crash_points.passage("worker.leased")
    print(i, flush=True)
    crash_points.passage("worker.training")
"""
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert child.stdout.split() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("point", ["", "name", "name:", ":1", "name:0", "name:-1", "name:x"])
def test_a_misspelt_crash_point_is_refused(point):
    """A misspelt crash point is refused, so that no test passes by never crashing."""
    with pytest.raises(ValueError, match="crash point"):
        crash_points.arm(point)


def test_an_unarmed_crash_point_is_cheap():
    """An unarmed crash point is cheap enough for every request."""
    start = time.perf_counter()
    for _ in range(100_000):
        crash_points.passage("worker.training")
    # 0.05 us; the rest allows for a busy machine
    assert (time.perf_counter() - start) / 100_000 < 1e-4
