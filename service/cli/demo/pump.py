"""Writes files of a synthetic pump, as a person would export them: with gaps, text and faults."""

import csv
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer

from service.cli.demo import own_service

HEADER = ("when", "machine", "speed", "flow", "pressure", "temperature", "current", "status")
MACHINES = ("pump-a", "pump-b")
STEP_MINUTES = 5
_START = datetime(2026, 3, 2, tzinfo=UTC)
_DAYS = 21  # normal days, which are learned
_BLANK = 0.002  # share of blank cells
_LOST = 0.003  # share of missing rows


class Fault(NamedTuple):
    """A fault of one machine, with its first and last row in the second file."""

    machine: str
    kind: str
    first: int
    last: int


FAULTS = (
    Fault("pump-a", "a blocked filter: the flow drops by a third", 300, 340),
    Fault("pump-b", "a worn bearing: temperature and current creep up", 900, 1100),
    Fault("pump-a", "a stuck sensor: the pressure does not move", 1500, 1560),
)


def write(
    folder: Path, *, days: int = _DAYS, judged_days: int = 7, seed: int = 0
) -> tuple[Path, Path]:
    """Write `pump.csv`, normal days to learn, and `pump-today.csv`, days with the faults."""
    rng = np.random.default_rng(seed)
    learned, judged = folder / "pump.csv", folder / "pump-today.csv"
    n, m = (count * 24 * 60 // STEP_MINUTES for count in (days, judged_days))
    values = {machine: _normal(n + m, rng, i) for i, machine in enumerate(MACHINES)}
    for fault in FAULTS:
        _break(values[fault.machine][n:], fault)
    _write(learned, {name: X[:n] for name, X in values.items()}, 0, rng)
    _write(judged, {name: X[n:] for name, X in values.items()}, n, rng)
    return learned, judged


def _normal(n: int, rng: np.random.Generator, machine: int) -> np.ndarray:
    """Return speed, flow, pressure, temperature and current of a healthy pump, (n, 5)."""
    hours = np.arange(n) * STEP_MINUTES / 60
    season = np.sin(2 * np.pi * (hours - 9) / 24)
    wander = np.convolve(rng.normal(size=n + 24), np.ones(25) / 5, "valid")
    load = 1 + 0.12 * season + 0.04 * wander
    speed = 2800 * load + rng.normal(0, 12, n)
    flow = 38 * load + rng.normal(0, 0.3, n)
    pressure = 4.2 * load**2 + rng.normal(0, 0.03, n) + 0.2 * machine
    warmth = np.convolve(np.concatenate([np.full(35, load[0]), load]), np.ones(36) / 36, "valid")
    temperature = 30 + 22 * warmth + 3 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 0.2, n)
    current = 11 * load * (1 + 0.05 * machine) + rng.normal(0, 0.08, n)
    return np.column_stack([speed, flow, pressure, temperature, current])


def _break(X: np.ndarray, fault: Fault) -> None:
    """Change the rows X (n, 5) as the fault would."""
    rows = slice(fault.first, fault.last)
    if "filter" in fault.kind:
        X[rows, 1] *= 0.67
    elif "bearing" in fault.kind:
        creep = np.linspace(0, 1, fault.last - fault.first)
        X[rows, 3] += 14 * creep
        X[rows, 4] += 2.5 * creep
    else:
        X[rows, 2] = X[fault.first, 2]


def _write(file: Path, values: dict[str, np.ndarray], first: int, rng: np.random.Generator) -> None:
    n = len(next(iter(values.values())))
    with file.open("w", encoding="utf-8", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(HEADER)
        for i in range(n):
            moment = _START + timedelta(minutes=STEP_MINUTES * (first + i))
            for machine, X in values.items():
                if rng.random() < _LOST:
                    continue
                cells = [f"{value:.3f}" if rng.random() > _BLANK else "" for value in X[i]]
                status = "peak" if 8 <= moment.hour < 20 else "base"
                rows.writerow([f"{moment:%Y-%m-%dT%H:%M:%SZ}", machine, *cells, status])


def run(output: Path) -> None:
    """Write the files, start a service, and run the two commands on the files with it."""
    output.mkdir(parents=True, exist_ok=True)
    learned, judged = write(output)
    columns = ("--time", "when", "--source", "machine", "--drop", "status")
    with (
        tempfile.TemporaryDirectory() as folder,
        own_service.running(Path(folder), keep=False) as url,
    ):
        for words in (
            ("learn", str(learned), "-d", "pump", *columns, "--now"),
            ("score", str(judged), "-d", "pump", *columns, "--top", "20"),
        ):
            typer.echo(f"\n$ anamnesis {' '.join(words)}")
            command = (sys.executable, "-m", "service.cli", *words, "--url", url)
            subprocess.run(command, check=True)
    typer.echo("\nThe faults that are in the second file, each to be found above:")
    for fault in FAULTS:
        start, end = (
            _START + timedelta(days=_DAYS, minutes=STEP_MINUTES * row)
            for row in (fault.first, fault.last)
        )
        typer.echo(f"  {fault.machine}, {start:%Y-%m-%d %H:%M} to {end:%H:%M}: {fault.kind}")


if __name__ == "__main__":
    run(Path("demo-output"))
