"""Admission: the champion in memory judges a normal batch before the batch is buffered."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decisions import admission
from service.api.alarmed_rows import AlarmedRows
from service.domain.admission import (
    ALARMED,
    DISSIMILAR,
    NOVEL,
    NOVEL_OR_DISSIMILAR,
    ONE_SENDER,
    AdmissionVerdict,
)
from service.domain.champion import Champion
from service.scoring.champions import Champions
from service.store.held_rows import HeldRows

AT_ONCE_BYTES = 2**16  # larger batches are judged in a thread, to keep the event loop free


class Admission:
    """Judges normal batches with the champions that this process has in memory."""

    def __init__(self, champions: Champions, held: HeldRows, alarmed: AlarmedRows) -> None:
        self._champions = champions
        self._held = held
        self._alarmed = alarmed

    async def judge(
        self, name: str, X: NDArray[np.float32], *, vouched: bool = False
    ) -> AdmissionVerdict | None:
        """Return the verdict on a batch X (n, d). None means that the whole batch is accepted.

        The verdict is None if there is no champion yet, or if the config accepts every batch. It is
        also None if X has no rows, because no row had its context. If the rows are `vouched` for,
        rows that alarmed earlier are not held back for that reason.
        """
        champion, detector = self._champions.get(name), self._champions.detector(name)
        if champion is None or detector is None or champion.version.dimension != X.shape[1]:
            return None
        policy = detector.config.admission
        if policy == "accept" or not len(X):
            return None
        judged = await _admission_of(champion, X, None)
        if judged.known < 1.0 and len(X) < admission.SMALL_BATCH:
            newest = await self._held.newest(name, X.shape[1], admission.POOL)
            judged = await _admission_of(champion, X, newest)
        verdict = _verdict(champion, judged, policy)
        if vouched:
            return verdict
        alarming = judged.p_values <= champion.threshold.alpha
        rare = alarming & (judged.p_values <= admission.ALPHA)
        if policy == "hold_novel":
            return _with_held(verdict, rare, NOVEL_OR_DISSIMILAR if verdict.held.any() else NOVEL)
        return _with_held(
            verdict, await self._alarmed.alarmed_earlier(detector, X, alarming, rare), ALARMED
        )


def _with_held(verdict: AdmissionVerdict, rows: NDArray[np.bool_], why: str) -> AdmissionVerdict:
    """Return the verdict with `rows` held back too. `why` becomes the reason of the verdict."""
    if not rows.any():
        return verdict
    newly_held = rows & ~verdict.held
    return replace(
        verdict,
        kept=verdict.kept & ~rows,
        held=verdict.held | rows,
        novel=max(0, verdict.novel - int(newly_held.sum())),
        reason=why,
    )


async def _admission_of(
    champion: Champion, X: NDArray[np.float32], newest: NDArray[np.float32] | None
) -> admission.Admission:
    args: tuple[Any, ...] = (champion, X, newest)
    at_once = X.nbytes <= min(AT_ONCE_BYTES, champion.inline.octets // 4)
    return _admit(*args) if at_once else await asyncio.to_thread(_admit, *args)


def _admit(
    champion: Champion, X: NDArray[np.float32], newest: NDArray[np.float32] | None
) -> admission.Admission:
    """Judge X (n, d) together with the `newest` rows. Missing values are filled in first."""
    version = champion.version
    newest = None if newest is None else version.filled(newest)
    return admission.admit(version, version.filled(X), champion.threshold, newest)


def _verdict(champion: Champion, judged: admission.Admission, policy: str) -> AdmissionVerdict:
    kept = ~judged.held
    if policy == "triage" and judged.well_known:
        kept = np.zeros(len(kept), bool)
        kept[admission.thin(judged.p_values)] = True
    return AdmissionVerdict(
        version=champion.number,
        kept=kept,
        held=judged.held,
        novel=round(judged.novel * len(kept)) if judged.surprising else 0,
        reason=DISSIMILAR,
        shares={"known": judged.known, "novel": judged.novel, "suspicious": judged.suspicious},
    )


def hold_all(verdict: AdmissionVerdict) -> AdmissionVerdict:
    """Return a verdict that holds back all rows, also those that `verdict` would have stored.

    It is for a sender whose novel rows would exceed its share of the buffer.
    """
    none, held_back = np.zeros_like(verdict.kept), verdict.held | verdict.kept
    return replace(verdict, kept=none, held=held_back, novel=0, reason=ONE_SENDER)
