"""Evidence for the gate beside alarms on normals: how well a candidate finds anomalies.

Alarms on normals are not enough. A candidate that forgot, or that learned noise, has a higher
calibrated threshold and so raises no false alarm. It is therefore tested on anomalies.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.decisions.admission import ALPHA
from models.parts.calibration import LARGEST
from models.parts.labels import Labels
from models.parts.lineage import (
    UNUSUAL,
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
from models.version.old_normals import like_old_normals
from models.version.version import Version

ROWS = 1000  # vectors of each kind: an AUROC then has an error of half a point
FOUND = 0.05  # an anomaly is found up to this p-value
REACH = 0.5  # an `astray` value lies at most this many ranges beyond either end of the range


def gather(
    candidate: Version,
    champion: Version,
    labels: Labels | None = None,
    anchor: Version | None = None,
    new: Array | None = None,
) -> Evidence:
    """Return the candidate's evidence, with comparisons with its parent `champion` added.

    - `synthetic`: how well candidate and champion separate synthetic anomalies from normals. Both
      are made from vectors that stand in for the champion's old normals.
    - `labelled`, if there are `labels`: how well both separate labelled anomalies from labelled
      normals.
    - `anchor`, if there is one: the same as `synthetic`, with the anchor in place of the champion.
      `old` is how often candidate and anchor alarm on normals drawn from the anchor. `walked`, if
      the `new` normals (n, d) are given, is how often anchor and champion alarm on them.

    Each version judges by its own calibration, not by its threshold. A normal alarms at p <= ALPHA.
    An anomaly is found at p <= FOUND, because many labelled anomalies lie close to ALPHA.
    """
    of_candidate, of_champion = _synthetic(candidate, champion)
    labelled = None
    if labels is not None and len((labels := _complete(labels)).vectors):
        versions = {"candidate": candidate, "champion": champion, "anchor": anchor or champion}
        labelled = _labelled(versions, labels)
    return msgspec.structs.replace(
        candidate.lineage.evidence,
        synthetic=Synthetic(n=ROWS, candidate=of_candidate, champion=of_champion),
        labelled=labelled,
        anchor=anchor and _anchored(candidate, champion, anchor, new),
    )


def _anchored(
    candidate: Version, champion: Version, anchor: Version, new: Array | None
) -> Anchored:
    of_candidate, of_anchor = _synthetic(candidate, anchor)
    old = _old_normals(anchor, ROWS)
    return Anchored(
        n=ROWS,
        candidate=of_candidate,
        anchor=of_anchor,
        old=BesideAnchor(anchor=_alarm_rate(anchor, old), candidate=_alarm_rate(candidate, old)),
        walked=None if new is None else _walked(candidate, champion, anchor, new),
    )


def _old_normals(version: Version, n: int) -> Array:
    """Return vectors (n, d) that stand in for the version's old normals, in the client's units."""
    rng = np.random.default_rng(1)
    return version.in_client_units(like_old_normals(version, version.config.score, n, rng))


def _alarm_rate(version: Version, X: Array) -> float:
    """Return the share of the rows of X (n, d) on which the version alarms."""
    return float((version.p_values(X) <= ALPHA).mean())


def _walked(candidate: Version, champion: Version, anchor: Version, new: Array) -> Walked:
    """Return how often anchor and champion alarm on new normals (n, d), and `unexplained`.

    If a regime moves in small steps, the champion has learned the step before, so new rows are
    usual to it although the anchor alarms on them. Such rows are unexplained. Most rows of a real
    new regime are unusual to the champion, so they are explained. The weight of an unexplained row
    is the share of its regime that was usual when the regime first came. So rows of a regime that
    was really new then hardly count.
    """
    new = new[~np.isnan(new).any(axis=1)][:ROWS]
    by_anchor, by_champion = anchor.p_values(new), champion.p_values(new)
    unexplained = (by_anchor <= ALPHA) & (by_champion > UNUSUAL)
    weights = _came_usual(champion, new) * _came_usual(candidate, new)
    return Walked(
        anchor=float((by_anchor <= ALPHA).mean()),
        champion=float((by_champion <= ALPHA).mean()),
        n=len(new),
        unexplained=float((unexplained * weights).mean()),
    )


def _came_usual(version: Version, X: Array) -> Float64:
    """Return how much of each row's regime was usual when the regime first came, (n,)."""
    usual = {regime.number: 1.0 - (regime.novel or 0.0) for regime in version.lineage.regimes}
    return np.array([usual.get(number, 1.0) for number in version.nearest_regime(X).tolist()])


def _synthetic(candidate: Version, other: Version) -> tuple[Figures, Figures]:
    """Return how well both versions separate synthetic anomalies of `other` from its normals.

    - `auroc`: the AUROC of normals against anomalies of both kinds.
    - `apart`: the share of `astray` anomalies that score above 95 % of the normals. It falls if a
      version has forgotten which values occur together in old normals. It is not measured at 99 %,
      because the highest 1 % are the poorest of the drawn vectors.
    - `found`: the share of `astray` anomalies with p <= FOUND. It falls if the calibration contains
      anomalies or noise.
    """
    normals, astray, shuffled = _normals_and_anomalies(other)

    def figures(version: Version) -> Figures:
        of_normals, of_astray, of_shuffled = (version.score(X) for X in (normals, astray, shuffled))
        return Figures(
            auroc=auroc(of_normals, np.concatenate([of_astray, of_shuffled])),
            apart=float((of_astray > np.quantile(of_normals, 1.0 - UNUSUAL)).mean()),
            found=float((version.calibration.p_values(of_astray) <= FOUND).mean()),
        )

    return figures(candidate), figures(other)


def _normals_and_anomalies(version: Version) -> tuple[Array, Array, Array]:
    """Return drawn normals, and anomalies `astray` and `shuffled`, (ROWS, d) each.

    In each anomaly a random share of the features, uniform in (0, 1), is replaced. In `astray` the
    values are uniform over the feature's range and half a range beyond either end. In `shuffled`
    they come from other normals, so that each value is common and only the combination is not.
    """
    rng = np.random.default_rng(0)
    rows = _old_normals(version, 3 * ROWS)
    normals, base, others = rows[:ROWS], rows[ROWS : 2 * ROWS], rows[2 * ROWS :]
    replaced = rng.random(base.shape) < rng.random((ROWS, 1))
    replaced[np.arange(ROWS), rng.integers(base.shape[1], size=ROWS)] = True  # at least one
    low, high = (end(rows, axis=0).astype(np.float64) for end in (np.min, np.max))
    reach = REACH * (high - low)
    astray = rng.uniform(low - reach, high + reach, size=base.shape).clip(-LARGEST, LARGEST)
    shuffled = rng.permuted(others, axis=0)
    return (
        normals,
        np.where(replaced, astray, base).astype(np.float32),
        np.where(replaced, shuffled, base).astype(np.float32),
    )


def _complete(labels: Labels) -> Labels:
    """Return the labels of complete vectors: some versions cannot judge vectors with gaps."""
    complete = ~np.isnan(labels.vectors).any(axis=1)
    return Labels(labels.vectors[complete], labels.anomalous[complete])


def _labelled(versions: Mapping[str, Version], labels: Labels) -> Labelled:
    """Return counts of `labels`, and the share of labelled normals on which each version alarms.

    `known` counts the anomalies that champion or anchor find, `kept` those of them that the
    candidate finds.
    """
    normals = ~labels.anomalous
    found_by: dict[str, NDArray[np.bool_]] = {}
    alarms: dict[str, OwnAlarms] = {}
    for key, version in versions.items():
        p = version.p_values(labels.vectors)
        found_by[key] = (p <= FOUND) & labels.anomalous
        if normals.any():
            alarms[key] = OwnAlarms(alarms=float((p[normals] <= ALPHA).mean()))
    known = found_by["champion"] | found_by["anchor"]
    return Labelled(
        anomalies=int((~normals).sum()),
        normals=int(normals.sum()),
        known=int(known.sum()),
        kept=int((known & found_by["candidate"]).sum()),
        **alarms,
    )
