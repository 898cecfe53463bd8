"""Finds the rows of a normal batch that alarmed when they were scored. A person reviews them."""

import contextlib

import numpy as np
from numpy.typing import NDArray

from service.domain.detector import Detector
from service.domain.event import digest
from service.problems import StoreUnavailable
from service.store.incidents import Incidents
from service.store.traffic import TrafficStore
from service.telemetry.live_reporter import LiveReporter


class AlarmedRows:
    """Knows which rows alarmed lately, in this process (memory) and in others (the store)."""

    def __init__(self, reporter: LiveReporter, traffic: TrafficStore, incidents: Incidents) -> None:
        self._reporter = reporter
        self._traffic = traffic
        self._incidents = incidents

    async def alarmed_earlier(
        self,
        detector: Detector,
        X: NDArray[np.float32],
        alarming: NDArray[np.bool_],
        rare: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Return which of the `alarming` rows of X (n, d) alarmed earlier, (n,).

        `rare` (n,) marks the alarming rows with the smallest p-values. While an incident is open,
        every such row counts, since it may belong to the incident. Alarms of the last second in
        another process are not known yet.
        """
        known_alarms = np.zeros(len(X), bool)
        if not alarming.any():
            return known_alarms
        with contextlib.suppress(StoreUnavailable):  # writing the batch then fails anyway
            if rare.any() and await self._incidents.unfinished(detector.name):
                known_alarms = rare.copy()
        rows = np.flatnonzero(alarming & ~known_alarms)
        digests = [digest(X[row]) for row in rows]
        known = self._reporter.alarmed(detector.name)
        if unknown := [digest for digest in digests if digest not in known]:
            with contextlib.suppress(StoreUnavailable):
                known = known | set(await self._traffic.recorded(detector.name, unknown))
        known_alarms[rows] = [digest in known for digest in digests]
        return known_alarms
