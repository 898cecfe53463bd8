"""Evidence for the gate beside alarms on normals: how well a candidate finds anomalies.

Alarms on normals are not enough. A candidate that forgot, or that learned noise, has a higher
calibrated threshold and so raises no false alarm. It is therefore tested on anomalies. This module
needs numpy alone.
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
from models.scores.by_name import judges_pictures, with_less_noise
from models.version.version import Version

ROWS = 1000  # vectors of each kind: an AUROC then has an error of half a point
FOUND = 0.05  # an anomaly is found up to this p-value
REACH = 0.5  # a stray value lies at most this many ranges beyond either end of a feature's range


def gather(
    candidate: Version,
    champion: Version,
    labels: Labels | None = None,
    anchor: Version | None = None,
    new: Array | None = None,
) -> Evidence:
    """Return the candidate's evidence, with comparisons with its parent `champion` added.

    - `synthetic`: how well candidate and champion separate synthetic anomalies from normals. Both
      are made from vectors that the champion's generator draws.
    - `labelled`, if there are `labels`: the same for labelled vectors.
    - `anchor`, if there is one: the same as `synthetic`, with the anchor in place of the champion.
      `old` is how often candidate and anchor alarm on normals drawn from the anchor. `walked`, if
      the `new` normals (n, d) are given, is how often anchor and champion alarm on them.

    Each version judges by its own calibration, not by its threshold. A normal alarms at p <= ALPHA.
    An anomaly is found at p <= FOUND, because many labelled anomalies lie close to ALPHA.
    """
    ours, theirs = _synthetic(candidate, champion)
    labelled = None
    if labels is not None and len((labels := _complete(labels)).vectors):
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
    rates = _alarm_rates(_alarms({"candidate": candidate, "anchor": anchor}, _drawn(anchor)[0]))
    return Anchored(
        n=ROWS,
        candidate=ours,
        anchor=theirs,
        old=BesideAnchor(**rates),
        walked=None if new is None else _walked(candidate, champion, anchor, new),
    )


def _alarms(versions: Mapping[str, Version], X: Array) -> dict[str, NDArray[np.bool_]]:
    """Return a mask (n,) for each version: the rows of X (n, d) on which it alarms."""
    return {
        name: version.calibration.p_values(version.score(X)) <= ALPHA
        for name, version in versions.items()
    }


def _alarm_rates(alarms: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return the share of alarms of each version."""
    return {name: float(mask.mean()) for name, mask in alarms.items()}


def _walked(candidate: Version, champion: Version, anchor: Version, new: Array) -> Walked:
    """Return how often anchor and champion alarm on new normals (n, d).

    `unexplained` is the share on which the anchor alarms and the champion does not, minus the share
    that alarmed when their regime first came. An alarm at that time was visible to the person who
    admitted the regime. A regime that moves in small steps never shows such an alarm.
    """
    new = new[~np.isnan(new).any(axis=1)][:ROWS]
    novel = {regime.number: regime.novel or 0.0 for regime in candidate.lineage.regimes}
    alarms = _alarms({"anchor": anchor, "champion": champion}, new)
    regimes, unexplained = candidate.nearest_regime(new), 0.0
    for number in np.unique(regimes).tolist():
        mine = regimes == number
        rates = _alarm_rates({name: mask[mine] for name, mask in alarms.items()})
        more = rates["anchor"] - rates["champion"] - novel.get(number, 0.0)
        unexplained += max(0.0, more) * float(mine.mean())
    return Walked(**_alarm_rates(alarms), n=len(new), unexplained=unexplained)


def _synthetic(candidate: Version, other: Version) -> tuple[Figures, Figures]:
    """Return how well both versions separate synthetic anomalies of `other` from its normals.

    - `auroc`: the AUROC of normals against anomalies of both kinds.
    - `apart`: the share of `astray` anomalies that score above 99 % of the normals. It falls if a
      version has forgotten which values occur together in old normals.
    - `found`: the share of `astray` anomalies with p <= FOUND. It falls if the calibration contains
      anomalies or noise.
    """
    normals, astray, shuffled = _drawn(other)

    def figures(version: Version) -> Figures:
        of_normals, of_astray, of_shuffled = (version.score(X) for X in (normals, astray, shuffled))
        return Figures(
            auroc=auroc(of_normals, np.concatenate([of_astray, of_shuffled])),
            apart=float((of_astray > np.quantile(of_normals, 1.0 - ALPHA)).mean()),
            found=float((version.calibration.p_values(of_astray) <= FOUND).mean()),
        )

    return figures(candidate), figures(other)


def _drawn(version: Version) -> tuple[Array, Array, Array]:
    """Draw normals and two kinds of synthetic anomalies from the version's generator, (ROWS, d).

    In each anomaly a random share of the features, uniform in (0, 1), is replaced. In `astray` the
    values are uniform over the feature's range and half a range beyond either end. In `shuffled`
    they come from other normals, so that each value is common and only the combination is not.
    """
    rng = np.random.default_rng(0)
    rows = version.with_faithful_draws().sample(3 * ROWS, seed=1)
    if judges_pictures(version.config.score, version.network):
        x = version.scaler.transform(rows)
        rows = version.scaler.inverse(with_less_noise(version.network, x, np.random.default_rng(2)))
    normals, base, others = rows[:ROWS], rows[ROWS : 2 * ROWS], rows[2 * ROWS :]
    wrong = rng.random(base.shape) < rng.random((ROWS, 1))
    wrong[np.arange(ROWS), rng.integers(base.shape[1], size=ROWS)] = True  # at least one
    low, high = (end(rows, axis=0).astype(np.float64) for end in (np.min, np.max))
    reach = REACH * (high - low)
    astray = rng.uniform(low - reach, high + reach, size=base.shape).clip(-LARGEST, LARGEST)
    shuffled = rng.permuted(others, axis=0)
    return (
        normals,
        np.where(wrong, astray, base).astype(np.float32),
        np.where(wrong, shuffled, base).astype(np.float32),
    )


def _complete(labels: Labels) -> Labels:
    """Return the labels of complete vectors: some versions cannot judge vectors with gaps."""
    whole = ~np.isnan(labels.vectors).any(axis=1)
    return Labels(labels.vectors[whole], labels.anomalous[whole])


def _labelled(versions: Mapping[str, Version], labels: Labels) -> Labelled:
    """Return counts of `labels`, and the share of labelled normals on which each version alarms.

    `known` counts the anomalies that champion or anchor find, `kept` those of them that the
    candidate finds.
    """
    normals = ~labels.anomalous
    found_by: dict[str, NDArray[np.bool_]] = {}
    alarms: dict[str, OwnAlarms] = {}
    for key, version in versions.items():
        p = version.calibration.p_values(version.score(labels.vectors))
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
