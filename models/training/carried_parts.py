"""Carries the calibration scores of each part of the score `auto` from a champion to a version."""

from typing import NamedTuple, Self

import numpy as np

from models.arrays import Array, Float64
from models.parts.carried_calibration import carried, resembling
from models.scores.auto import FEW_FEATURES, Auto, lifts_of, parts_of
from models.version.version import Version

NETWORK, TREE = 0, FEW_FEATURES[0]  # the indices of the network's part and of the tree's


class GeneratedScores(NamedTuple):
    """The scores of scaled vectors that a champion generated, by each part of two scores `auto`.

    `generated` are the vectors (g, d), `parts_before` (k, g) their scores by the parts of the
    champion's score `before`, and `parts_after` (l, g) those by the parts of the new version's
    score `after`. The first two are None for a champion without the score `auto`.
    """

    champion: Version
    generated: Array
    before: Auto | None
    parts_before: Float64 | None
    after: Auto
    parts_after: Float64

    @classmethod
    def measure(cls, champion: Version, after: Auto, generated: Array) -> Self:
        """Score the vectors by all parts."""
        before, parts_before = None, None
        if "auto.tables" in champion.scoring:
            before = Auto.from_tensors(champion.network, champion.scoring)
            parts_before = parts_of(before, generated)
        return cls(champion, generated, before, parts_before, after, parts_of(after, generated))

    def carried_tables(self, rng: np.random.Generator) -> list[Float64]:
        """Return the champion's calibration scores of each part, as they are under `after`.

        Many generated vectors score like a real one, but lie far from all real ones. There the
        scores of the network and of the trees change in another way. The views draw many pairs of
        values that never occur, and the champion's tree draws too few pairs that are new. The
        vectors for these parts are therefore drawn by both, and `resembling` chooses among them.
        For the parts of the trees, the pairs of a chosen vector must also be as usual to the
        champion's tree as those of old normals.
        """
        if self.before is None or self.parts_before is None:
            # A champion of another kind has no such scores: those of generated vectors are used.
            return [np.sort(scores) for scores in self.parts_after]
        counted = self.before.counted
        # The tables of the trees are lifted; the scores of the generated vectors are not.
        lifts = lifts_of(counted)
        tables = self.champion.scoring["auto.tables"] - lifts
        before, after = self.parts_before, self.parts_after
        if trees := set(FEW_FEATURES) & set(counted):
            drawn = self.before.views.sample_values(len(self.generated), rng, unseen=True)
            before = np.concatenate([before, parts_of(self.before, drawn)], axis=1)
            after = np.concatenate([after, parts_of(self.after, drawn)], axis=1)
        chosen, generated = resembling(before, tables, rng), np.arange(len(self.generated))
        rows_of = {NETWORK: chosen}
        if trees:
            i = counted.index(TREE)
            usual = chosen[before[i, chosen] <= tables[i].max()]
            rows_of |= dict.fromkeys(trees, usual if len(usual) else chosen)
        m = tables.shape[1]  # all parts get as many old scores
        middles_of_ranks = (np.arange(m) + 0.5) / m
        olds = []
        for part, now in zip(self.after.counted, after, strict=True):
            if part not in counted:  # an earlier release may have fewer parts, or others
                olds.append(np.quantile(now[chosen], middles_of_ranks))
                continue
            i = counted.index(part)
            rows = rows_of.get(part, generated)
            olds.append(carried(tables[i], before[i, rows], now[rows]) + lifts[i])
        return olds

    def joined(self, calibrated: Auto) -> tuple[Float64, Float64]:
        """Return the scores (g,) under both versions, by which the threshold is carried.

        `calibrated` is the score `after` with its calibration scores. In both scores, the surprise
        of a vector by a tree is the surprise by the champion's tree. The views draw many pairs of
        values that never occur. By the new trees, the surprise of such vectors changes much. The
        surprise of real old normals hardly changes, because each part is calibrated.
        """
        after = calibrated.surprises(self.parts_after)
        if self.before is None or self.parts_before is None:
            return self.champion.score_scaled(self.generated), calibrated.of_surprises(after)
        counted = self.before.counted
        before = self.before.surprises(self.parts_before)
        for part in set(FEW_FEATURES) & set(counted) & set(calibrated.counted):
            after[calibrated.counted.index(part)] = before[counted.index(part)]
        return self.before.of_surprises(before), calibrated.of_surprises(after)
