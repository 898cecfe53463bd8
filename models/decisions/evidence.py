"""Evidence for the gate besides alarms on normals: whether anomalies still stand out.

A calibrated threshold hides much: a candidate that forgot, or that learned noise, has a higher one
and raises no false alarm. So it is asked for the anomalies. numpy alone.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.decisions.admission import ALPHA
from models.parts.calibration import LARGEST
from models.parts.labels import Labels
from models.parts.lineage import (
    Anchored,
    BesideAnchor,
    Evidence,
    Figures,
    Labelled,
    OwnAlarms,
    Synthetic,
    Walked,
)
from models.parts.statistics import auroc
from models.version.version import Version

ROWS = 1000  # of each kind: an AUROC is then known within half a point
FOUND = 0.05
REACH = 0.5  # how far a feature goes astray beyond either end of its range, in ranges


def gather(
    candidate: Version,
    champion: Version,
    labels: Labels | None = None,
    anchor: Version | None = None,
    new: Array | None = None,
) -> Evidence:
    """Return the candidate's evidence with what it shows beside `champion`, which it grew from.

    - `synthetic`: how candidate and champion tell synthetic anomalies from normals, both made of
      what the champion draws.
    - `labelled`, where there are `labels`: the same for vectors that people judged.
    - `anchor`, where there is one: as `synthetic`, with the anchor in the champion's place; `old`,
      how often both alarm on the normals that the anchor draws; and `walked`, where the `new`
      normals (n, d) are given, how often anchor and champion alarm on those.

    All is judged by each version's own calibration and not by its threshold: at p <= ALPHA, and
    anomalies at p <= FOUND, for many that are labelled lie close to ALPHA.
    """
    ours, theirs = _synthetic(candidate, champion)
    labelled = None
    if labels is not None and len((labels := _whole(labels)).vectors):
        versions = {"candidate": candidate, "champion": champion, "anchor": anchor or champion}
        labelled = _labelled(versions, labels)
    return msgspec.structs.replace(
        candidate.lineage.evidence,
        synthetic=Synthetic(n=ROWS, candidate=ours, champion=theirs),
        labelled=labelled,
        anchor=anchor and _anchored(candidate, champion, anchor, new),
    )


def _anchored(
    candidate: Version, champion: Version, anchor: Version, new: Array | None
) -> Anchored:
    ours, theirs = _synthetic(candidate, anchor)
    alarms = _shares(_alarms({"candidate": candidate, "anchor": anchor}, _drawn(anchor)[0]))
    return Anchored(
        n=ROWS,
        candidate=ours,
        anchor=theirs,
        old=BesideAnchor(candidate=alarms["candidate"], anchor=alarms["anchor"]),
        walked=None if new is None else _walked(candidate, champion, anchor, new),
    )


def _alarms(versions: Mapping[str, Version], X: Array) -> dict[str, NDArray[np.bool_]]:
    """Return which of X (n, d) each version alarms on, (n,)."""
    return {name: one.calibration.p_values(one.score(X)) <= ALPHA for name, one in versions.items()}


def _shares(alarms: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    return {name: float(one.mean()) for name, one in alarms.items()}


def _walked(candidate: Version, champion: Version, anchor: Version, new: Array) -> Walked:
    """Return how often anchor and champion alarm on new normals (n, d), and what explains it.

    `unexplained` is the share on which the anchor alarms and the champion does not, beyond what
    alarmed when their regime came: that was seen by whoever let it in, while of what comes step by
    step each step is hardly news.
    """
    new = new[~np.isnan(new).any(axis=1)][:ROWS]
    novel = {one.number: one.novel or 0.0 for one in candidate.lineage.regimes}
    alarms = _alarms({"anchor": anchor, "champion": champion}, new)
    regimes, unexplained = candidate.nearest_regime(new), 0.0
    for number in np.unique(regimes).tolist():
        mine = regimes == number
        both = _shares({name: one[mine] for name, one in alarms.items()})
        more = both["anchor"] - both["champion"] - novel.get(number, 0.0)
        unexplained += max(0.0, more) * float(mine.mean())
    shares = _shares(alarms)
    return Walked(
        anchor=shares["anchor"], champion=shares["champion"], n=len(new), unexplained=unexplained
    )


def _synthetic(candidate: Version, other: Version) -> tuple[Figures, Figures]:
    """Return how candidate and other tell synthetic anomalies of `other` from its normals.

    - `auroc`: of anomalies of both kinds beside normals.
    - `apart`: the share of those astray that score above 99 % of the normals. It falls where a
      version no longer knows what goes together in old normals.
    - `found`: the share of those astray with p <= FOUND. It falls where the calibration has
      anomalies or noise in it too.
    """
    normals, astray, shuffled = _drawn(other)

    def figures(one: Version) -> Figures:
        normal, wild, mixed = (one.score(X) for X in (normals, astray, shuffled))
        return Figures(
            auroc=auroc(normal, np.concatenate([wild, mixed])),
            apart=float((wild > np.quantile(normal, 1.0 - ALPHA)).mean()),
            found=float((one.calibration.p_values(wild) <= FOUND).mean()),
        )

    return figures(candidate), figures(other)


def _drawn(version: Version) -> tuple[Array, Array, Array]:
    """Draw normals and two kinds of synthetic anomalies from the version's generator, (ROWS, d).

    Of each anomaly a share of the features, of its own, uniform in (0, 1), is not as it should
    be. `astray`: drawn uniformly from their range and half of it beyond either end. `shuffled`:
    taken from other normals, so that each value is common and their combination is not.
    """
    rng = np.random.default_rng(0)
    rows = version.faithful().sample(3 * ROWS, seed=1)
    normals, base, others = rows[:ROWS], rows[ROWS : 2 * ROWS], rows[2 * ROWS :]
    wrong = rng.random(base.shape) < rng.random((ROWS, 1))
    wrong[np.arange(ROWS), rng.integers(base.shape[1], size=ROWS)] = True  # one at the least
    low, high = (end(rows, axis=0).astype(np.float64) for end in (np.min, np.max))
    reach = REACH * (high - low)
    astray = rng.uniform(low - reach, high + reach, size=base.shape).clip(-LARGEST, LARGEST)
    shuffled = rng.permuted(others, axis=0)
    return (
        normals,
        np.where(wrong, astray, base).astype(np.float32),
        np.where(wrong, shuffled, base).astype(np.float32),
    )


def _whole(labels: Labels) -> Labels:
    """Return those without gaps: not every version can judge the others."""
    whole = ~np.isnan(labels.vectors).any(axis=1)
    return Labels(labels.vectors[whole], labels.anomalous[whole])


def _labelled(versions: Mapping[str, Version], labels: Labels) -> Labelled:
    """Return counts of `labels`, and the share of the normals on which each version `alarms`.

    `known` of the anomalies are found by champion or anchor, `kept` of those by the candidate.
    """
    normals = ~labels.anomalous
    found: dict[str, NDArray[np.bool_]] = {}
    alarms: dict[str, OwnAlarms] = {}
    for key, one in versions.items():
        p = one.calibration.p_values(one.score(labels.vectors))
        found[key] = (p <= FOUND) & labels.anomalous
        if normals.any():
            alarms[key] = OwnAlarms(alarms=float((p[normals] <= ALPHA).mean()))
    known = found["champion"] | found["anchor"]
    return Labelled(
        anomalies=int((~normals).sum()),
        normals=int(normals.sum()),
        known=int(known.sum()),
        kept=int((known & found["candidate"]).sum()),
        **alarms,
    )
