"""The shadow stage: a candidate scores sampled live traffic beside the champion, before promotion.

If a detector's config asks for it (`retrain.shadow`), API processes store its latest vectors. Here
both versions score them. The result becomes evidence for the gate.
"""

import asyncio
import time

import numpy as np
from numpy.typing import NDArray

from models import Version
from models.decisions.shadow_result import DisputedRow, JudgedRow, ShadowResult
from models.parts.labels import Labels
from models.version.judgement import Judgement
from service.domain.detector import Detector
from service.domain.detector_config import configured
from service.problems import StoreUnavailable
from service.store.live_summaries import LiveSummaries
from service.store.streams import live_vectors_kept

_LOOK_SECONDS = 0.5  # between two counts of the vectors
ROWS = 10  # most vectors in the record, which is kept for long
_ROW_NUMBERS = 1000  # most numbers in these vectors together, so fewer wide vectors are recorded


async def sample(live: LiveSummaries, detector: Detector) -> NDArray[np.float32]:
    """Return the latest live vectors, (n, d), once there are as many as the config asks for.

    If the configured time ends first, it returns fewer. The time includes waiting for a store that
    is away.
    """
    shadow, d = detector.config.retrain.shadow, detector.dimension or 0
    assert shadow is not None, "called only if the config has a shadow stage"
    most, until = live_vectors_kept(shadow.vectors, d), time.monotonic() + shadow.seconds
    while True:
        try:
            if await live.sample_size(detector.name) >= most or time.monotonic() >= until:
                return await live.sample(detector.name, most, d)
        except StoreUnavailable:
            if time.monotonic() >= until:
                return np.empty((0, d), np.float32)
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, until - time.monotonic())))


def compare(
    candidate: Version,
    champion: Version,
    detector: Detector,
    labels: Labels | None,
    X: NDArray[np.float32],
) -> ShadowResult:
    """Return the evidence on live vectors X (n, d); the config sets the threshold of each version.

    In the result, `candidate` and `champion` are the shares of alarms of the two versions, and
    `disagree` is the number of vectors on which only one of them alarms. `rows` has some of these
    vectors: those whose severities differ most.
    """
    shadow = detector.config.retrain.shadow
    assert shadow is not None, "called only if the config has a shadow stage"
    most_asked = live_vectors_kept(shadow.vectors, X.shape[1])
    if not len(X):
        return ShadowResult(asked=most_asked, n=0)

    def judged(version: Version) -> Judgement:
        serving = configured(version, detector.config)
        return serving.judge(X, serving.threshold_for(detector.config.threshold, labels))

    by_candidate, by_champion = judged(candidate), judged(champion)
    disagree = np.flatnonzero(by_candidate.is_anomaly != by_champion.is_anomaly)
    distance = np.abs(by_candidate.severities - by_champion.severities)[disagree]
    most = min(ROWS, _ROW_NUMBERS // X.shape[1])
    rows = disagree[np.argsort(-distance, kind="stable")[:most]]
    return ShadowResult(
        asked=most_asked,
        n=len(X),
        candidate=float(by_candidate.is_anomaly.mean()),
        champion=float(by_champion.is_anomaly.mean()),
        disagree=len(disagree),
        rows=tuple(
            DisputedRow(
                vector=tuple(X[row].tolist()),
                candidate=_judged_row(by_candidate, row),
                champion=_judged_row(by_champion, row),
            )
            for row in rows.tolist()
        ),
    )


def _judged_row(judgement: Judgement, row: int) -> JudgedRow:
    return JudgedRow(
        score=float(judgement.scores[row]),
        p_value=float(judgement.p_values[row]),
        is_anomaly=bool(judgement.is_anomaly[row]),
    )
