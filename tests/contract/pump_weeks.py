"""Four weeks of a synthetic pump as CSV: two to learn, two with faults and a new healthy mode."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

HEADER = "when,speed,flow,pressure,temperature,current"
MINUTES = 10  # between two rows
DAY = 24 * 60 // MINUTES
WEEKS_LEARNED, WEEKS_JUDGED = 2, 2
ROWS_A_HALF_DAY = DAY // 2


class Span(NamedTuple):
    """Rows `first` to `last`, the last not included, of the judged weeks."""

    kind: str
    first: int
    last: int


SPANS = (
    Span("step", 1 * DAY + 50, 1 * DAY + 80),
    Span("mode", 3 * DAY + 20, 3 * DAY + 80),
    Span("ramp", 6 * DAY + 10, 6 * DAY + 130),
    Span("mode", 9 * DAY + 60, 9 * DAY + 120),
    Span("stuck", 11 * DAY + 36, 11 * DAY + 108),
)


def weeks() -> tuple[str, str, datetime]:
    """Return the weeks to learn and the weeks to judge as CSV, and when the weeks to judge begin.

    The weeks end now, so that a service treats their rows as recent.
    """
    rng = np.random.default_rng(0)
    n, m = 7 * DAY * WEEKS_LEARNED, 7 * DAY * WEEKS_JUDGED
    X = _healthy(n + m, rng)
    for span in SPANS:
        _happens(X[n:], span, rng)
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    start = end - timedelta(minutes=MINUTES * (n + m))
    judged_from = start + timedelta(minutes=MINUTES * n)
    return _csv(X[:n], start), _csv(X[n:], judged_from), judged_from


def _healthy(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return speed, flow, pressure, temperature and current of a healthy pump, (n, 5)."""
    hours = np.arange(n) * MINUTES / 60
    wander = np.convolve(rng.normal(size=n + 11), np.ones(12) / 12**0.5, "valid")
    load = 1 + 0.12 * np.sin(2 * np.pi * (hours - 9) / 24) + 0.04 * wander
    speed = 2800 * load + rng.normal(0, 12, n)
    flow = 38 * load + rng.normal(0, 0.3, n)
    pressure = 4.2 * load**2 + rng.normal(0, 0.03, n)
    temperature = 52 + 9 * (load - 1) * 2 + rng.normal(0, 0.2, n)
    current = 11 * load + rng.normal(0, 0.08, n)
    return np.column_stack([speed, flow, pressure, temperature, current])


def _happens(X: np.ndarray, span: Span, rng: np.random.Generator) -> None:
    """Put a fault or the new mode into rows X (m, 5), in place."""
    rows = slice(span.first, span.last)
    n = span.last - span.first
    if span.kind == "step":  # a blocked filter
        X[rows, 1] *= 0.67
    elif span.kind == "ramp":  # a worn bearing
        creep = np.linspace(0, 1, n)
        X[rows, 3] += 14 * creep
        X[rows, 4] += 2.5 * creep
    elif span.kind == "stuck":
        X[rows, 2] = X[span.first, 2]
    else:  # a cleaning programme: slow and cool, little flow
        X[rows] = np.array([1400, 12, 1.1, 38, 5.0]) + rng.normal(size=(n, 5)) * [
            12, 0.3, 0.03, 0.2, 0.08,
        ]  # fmt: skip


def _csv(X: np.ndarray, start: datetime) -> str:
    lines = [HEADER]
    for i, row in enumerate(X):
        moment = start + timedelta(minutes=MINUTES * i)
        lines.append(f"{moment:%Y-%m-%dT%H:%M:%SZ}," + ",".join(f"{value:.3f}" for value in row))
    return "\n".join(lines) + "\n"
