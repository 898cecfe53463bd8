"""Whether torch can train on the device that the settings name."""

import subprocess

from service.processes.spawn import Spawn, python
from service.settings import Settings

_SECONDS = 120.0  # time to load torch from a cold disk


def unusable_device(settings: Settings) -> str | None:
    """Return in words why no worker can train as the settings say; None if one can.

    Only `cuda` can be unusable. Then another process loads torch, so that this one need not.
    """
    if settings.training_device != "cuda":
        return None
    command = python("service.trainer.check_device", settings.training_device)
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_SECONDS, **Spawn().keywords(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"ANAMNESIS_TRAINING_DEVICE: torch did not answer within {_SECONDS:g} s"
    if answer.returncode == 0:
        return None
    lines = answer.stderr.strip().splitlines() or [f"torch ended with status {answer.returncode}"]
    return f"ANAMNESIS_TRAINING_DEVICE: {lines[-1]}"
