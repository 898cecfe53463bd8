"""Waits for a retraining, up to a bound, and only while a worker runs."""

import time
from typing import TYPE_CHECKING

import typer

from service.cli import console

if TYPE_CHECKING:
    from service.client import Client
    from service.client.answers import LastRetraining

_QUEUED = ", queued until a worker is free"
_LOOK_SECONDS = 1.0
_NOBODY_SECONDS = 5.0  # a worker that is being restarted sends a heartbeat within this time


def retrain(
    client: "Client", detector: str, seconds: float, *, sent: bool = False
) -> "LastRetraining":
    """Retrain at once and return the outcome.

    `sent`: rows were just sent. If another retraining has taken them all, its outcome is returned.
    Exits with a message if no worker runs, or after `seconds`. In both cases the retraining stays
    queued.
    """
    from service.cli.progress import ShownProgress
    from service.client import Refused

    deadline = time.monotonic() + seconds
    with ShownProgress(f"retraining {detector}") as progress:
        try:
            outcome = client.retrain(detector, wait=min(2.0, seconds))
        except Refused as error:
            if not sent or error.problem.get("buffered") != 0:
                raise
            outcome = client.detector(detector)["last_retraining"]
            if outcome is None:
                raise
        seen = time.monotonic()
        while outcome is None:
            now = time.monotonic()
            if client.health().get("worker", True):
                seen = now
            elif now - seen > _NOBODY_SECONDS:
                _give_up(f"no worker runs, and {detector} waits for one: start `anamnesis worker`")
            if now > deadline:
                _give_up(f"the retraining of {detector} was not done in {seconds:g} s; it goes on")
            time.sleep(_LOOK_SECONDS)
            status = client.detector(detector)
            queued = status["retraining"]["state"] == "queued"
            progress.at(status["retraining"]["progress"], waits=_QUEUED if queued else "")
            if status["retraining"]["state"] == "idle":
                outcome = status["last_retraining"]
    return outcome


def _give_up(why: str) -> None:
    console.complain(why)
    raise typer.Exit(console.Exit.REFUSED)
