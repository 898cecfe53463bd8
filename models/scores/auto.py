"""The score `auto` combines the network's score with the densities of two views of the data.

Its parts are

    s_1        the negative ELBO
    s_2, s_3   the negative log densities of the two views (`parts.views`)
    s_4, s_5   the distances from the nearest centre in the two views
    s_6        the negative log density of the features' normal scores as if they were independent
    s_7        the largest of these normal scores; only if features are many
    s_8        -log p of the vector's values by a tree of features; only if features are few
    s_9        the excess of -log p over its mean, in pairs of which one feature has few values;
               only if there are such pairs
    s_10       the distance s_4 within the plane of the codes; only for pictures

Let p_i be the p-value of s_i(x) among the part's calibration scores of held-out normals, and
r_i = -log p_i the surprise of the part. Then

    S(x) = max(r_1 - .5, r_2, r_3, r_4, r_5, r_7, r_9 - .5)
           + .01 r_1 + .15 (r_4 + r_5 + r_6) + .2 r_8

in nats.

The first term tests several hypotheses by the smallest p (Tippett, The methods of statistics,
1931), weighted as in Genovese, Roeder & Wasserman (False discovery control with p-value weighting,
2006): the network's p counts 1.6 times. A density may be equally low just beside a dense region and
far from all data; the distances distinguish these cases, like nearest neighbours. The sixth part
reacts to a vector that is slightly unusual in many features; no density in few dimensions does. The
seventh reacts to one unusual feature among hundreds; in all other parts the noise of the hundreds
hides this feature. The eighth reacts to values, such as codes and counts, that occur often but not
together. The ninth reacts to them as well; it leaves out the noise of pairs of continuous features.
The terms added to the maximum have small weights. Larger weights would raise the threshold, because
the parts agree on normals, and would hide anomalies that only one part finds. S is calibrated again
as one score, so that the configured rate of false alarms holds.

For pictures, which a network with Bernoulli likelihood learns, only s_1 and s_10 count. Most pixels
are dark in most pictures, so normal scores and densities of single pixels say little, and in the
maximum they would hide what the network and the distance find. After a replay the plane is fitted
to drawn pictures too, so the distance of a real picture from the plane tells little.
"""

from collections.abc import Mapping, Sequence
from operator import mul, sub
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Calibration, representable
from models.parts.carried_calibration import thin
from models.parts.mixture import Mixture
from models.parts.network import Network
from models.parts.views import COMMON_UNIT, FAINT, Views
from models.scores.by_regime import Surprise
from models.scores.elbo import Scorer, row_blocks

ALWAYS = 6  # the number of parts that every version has, except for pictures
# The indices of the other parts: s_7 with many features, s_8 and s_9 with few.
MANY_FEATURES, FEW_FEATURES = (6,), (7, 8)
PICTURES = (0, 9)  # the indices of the parts that count for pictures
EARLIER_PICTURES = (0, 3)  # the same in versions of pictures that do not store the indices
MOST = 5_000  # the most calibration scores kept of each part
# The nats that are subtracted from each part's surprise in the maximum. The sixth and the eighth
# part are only added.
HANDICAPS = np.array([0.5, 0.0, 0.0, 0.0, 0.0, np.inf, 0.0, np.inf, 0.5, 0.0])
# The weight of each part's surprise that is added to the maximum. The views clip values beyond
# their reach, but the network's score keeps growing with the distance.
ADDED = np.array([0.01, 0.0, 0.0, 0.15, 0.15, 0.15, 0.0, 0.2, 0.0, 0.15])
# What explains each part: 0 is the network, 1 and 2 are the two views, 3 are the pairs.
EXPLAINED_BY = np.array([0, 1, 2, 1, 2, 2, 2, 2, 3, 1])
# Added to a tree's calibration scores. A tree has few different scores, and the trees of the folds
# give slightly lower ones. So without it, each row with the highest score would exceed them all.
LIFT = 0.25
DRAWN = 4_000  # vectors drawn in place of normals if there are none


class Auto:
    """The score `auto` as a function of scaled vectors; safe to call from several threads.

    `counted` are the indices of its parts, and `tables` their calibration scores, (c,) each.
    """

    def __init__(
        self,
        network: Network,
        views: Views,
        counted: tuple[int, ...],
        tables: Sequence[Float64],
    ) -> None:
        self._elbo = Scorer("elbo", network)
        self.views = views
        self._surprises = [Surprise(Calibration(np.sort(table))) for table in tables]
        self.counted = counted
        self._added = tuple(ADDED[list(self.counted)].tolist())
        self._handicaps = tuple(HANDICAPS[list(self.counted)].tolist())

    def parts(self, x: Array) -> Float64:
        """Return the scores of the k `counted` parts for one block of scaled x (n, d), (k, n).

        There are 6 to 8 parts, or 2 for pictures.
        """
        parts = np.empty((len(self.counted), len(x)))
        parts[0] = self._elbo(x)
        if self.counted == PICTURES:
            parts[1] = self.views.distance_in_plane(x)
        elif self.counted == EARLIER_PICTURES:
            parts[1] = self.views.distance(x)
        else:
            parts[1:] = self.views.misfits(x)[: len(parts) - 1]
        return representable(parts)

    def surprises(self, parts: Float64) -> Float64:
        """Return the surprise -log p of each part's scores, (k, n)."""
        surprises = np.empty_like(parts)
        for i, surprise in enumerate(self._surprises):
            surprises[i] = surprise(parts[i])
        return surprises

    def of_surprises(self, surprises: Float64) -> Float64:
        """Return S (n,) from the surprises (k, n) of the `counted` parts."""
        return representable(joined(surprises, self.counted))

    def __call__(self, x: Array) -> Float64:
        """Return the scores (n,) in nats of one block of scaled vectors x (n, d)."""
        return self.of_surprises(self.surprises(self.parts(x)))

    def of_one(self, x: Array) -> float:
        """Return the score of one scaled vector x (d,), as `Scaler.transform_one` gives it."""
        if len(self.counted) < ALWAYS:
            return float(self(x[None])[0])
        elbo = self._elbo.of_one(x) if self._elbo.takes_one else float(self._elbo(x[None])[0])
        parts = np.array((elbo, *self.views.misfits_of_one(x)), np.float32).tolist()
        # The views may have more parts than an earlier version calibrated.
        pairs = zip(self._surprises, parts, strict=False)
        surprises = [surprise.of_one(part) for surprise, part in pairs]
        added = sum(map(mul, self._added, surprises))
        return float(np.float32(max(map(sub, surprises, self._handicaps)) + added))

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's share of the largest part and its expected value, (n, d) each."""
        surprises = _with_handicaps(self.surprises(self.parts(x)), self.counted)
        explained_by = EXPLAINED_BY[list(self.counted)][surprises.argmax(axis=0)][:, None]
        shares, expected = zip(self._elbo.explain(x), *self.views.explain(x), strict=True)
        return np.choose(explained_by, shares), np.choose(explained_by, expected).astype(np.float32)

    @classmethod
    def from_tensors(cls, network: Network, scoring: Mapping[str, NDArray[Any]]) -> "Auto":
        """Return the score whose `needs` a version's `scoring` holds."""
        views = Views.from_tensors(scoring)
        if views is None:
            raise LookupError("scoring: the score auto needs its views")
        tables = list(scoring["auto.tables"])
        if "auto.parts" in scoring:
            counted = tuple(scoring["auto.parts"].tolist())
        else:
            counted = counted_parts(len(tables), views.tree is not None)
        return cls(network, views, counted, tables)


def counted_parts(n: int, tree: bool) -> tuple[int, ...]:
    """Return the indices of the parts of a score of n parts, whose views have a `tree` or not."""
    if n == len(EARLIER_PICTURES):
        return EARLIER_PICTURES
    return (*range(ALWAYS), *(FEW_FEATURES if tree else MANY_FEATURES))[:n]


def lifts_of(counted: tuple[int, ...]) -> Float64:
    """Return what is added to the calibration scores of each of the `counted` parts, (k, 1)."""
    return np.where(np.isin(counted, FEW_FEATURES), LIFT, 0.0)[:, None]


def learned_pictures(network: Network) -> bool:
    """Return whether the network learned pictures."""
    return network.shape.likelihood == "bernoulli"


def least_deviation(network: Network) -> float:
    """Return the argument `faint` with which the views of the network's vectors are fitted."""
    return COMMON_UNIT if learned_pictures(network) else FAINT


def joined(surprises: Float64, counted: tuple[int, ...]) -> Float64:
    """Return S (n,) from the surprises (k, n) of the `counted` parts."""
    score: Float64 = _with_handicaps(surprises, counted).max(axis=0)
    score += ADDED[list(counted)].dot(surprises)
    return score


def _with_handicaps(surprises: Float64, counted: tuple[int, ...]) -> Float64:
    """Return the surprises (k, n) less their handicaps, as the maximum compares them."""
    return surprises - HANDICAPS[list(counted), None]


def uncalibrated(network: Network, views: Views) -> Auto:
    """Return the score without calibration scores: only its parts may be used."""
    counted = counted_parts(ALWAYS + views.n_more, views.tree is not None)
    if learned_pictures(network):
        counted = PICTURES
    return Auto(network, views, counted, [np.arange(2.0)] * len(counted))


def needs(views: Views, tables: Sequence[Float64]) -> dict[str, NDArray[Any]]:
    """Return views and each part's calibration scores in the form that `scoring` stores."""
    kept = np.stack([representable(thin(np.sort(table), MOST)) for table in tables])
    scoring = {**views.to_tensors(), "auto.tables": kept}
    if len(kept) == len(PICTURES):  # else the number of tables tells which parts there are
        scoring["auto.parts"] = np.array(PICTURES)
    return scoring


def needs_from_draws(
    network: Network, latents: Mixture, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Return what `auto` needs, made from drawn vectors because there are no normals."""
    x = network.sample(latents.sample(2 * DRAWN, rng), rng)
    views = Views.fit(x[:DRAWN], int(rng.integers(2**31)), faint=least_deviation(network))
    score = uncalibrated(network, views)
    return needs(views, list(parts_of(score, x[DRAWN:])))


def parts_of(score: Auto, x: Array) -> Float64:
    """Return the scores of each part for any number n of scaled vectors x (n, d), (k, n)."""
    parts = [score.parts(x[rows]) for rows in row_blocks(*x.shape)]
    return np.concatenate(parts or [np.empty((len(score.counted), 0))], axis=1)
