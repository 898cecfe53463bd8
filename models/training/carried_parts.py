"""Carries the calibration scores of each part of the score `auto` from a champion to a version."""

from typing import NamedTuple, Self

import numpy as np

from models.arrays import Array, Float64
from models.parts.carried_calibration import carried, resembling
from models.scores.auto import FEW_FEATURES, Auto, parts_of
from models.version.version import Version

NETWORK = 0  # the index of the network's part
# Added to a tree's calibration scores. A tree has few different scores, and the trees of the folds
# give slightly lower ones. So without it, each row with the highest score would exceed them all.
LIFT = 0.25


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

        Many generated vectors have the score of a real one, but lie far from all real ones, and
        there the network's scores change in another way. So for the network's part only the vectors
        count that `resembling` chooses. For the trees' parts, two predictions are averaged:
        generated vectors have many pairs of values that never occur, and vectors drawn from the
        champion's tree have too few that are new.
        """
        if self.before is None or self.parts_before is None:
            # A champion of another kind has no such scores: those of generated vectors are used.
            return [np.sort(scores) for scores in self.parts_after]
        counted = self.before.counted
        # The tables of the trees are lifted; the scores of the generated vectors are not.
        lifts = lifts_of(counted)
        tables = self.champion.scoring["auto.tables"] - lifts
        chosen = resembling(self.parts_before, tables, rng)
        before = dict(zip(counted, self.parts_before, strict=True))
        after = dict(zip(self.after.counted, self.parts_after, strict=True))
        changes = {part: [(before[part], after[part])] for part in counted if part in after}
        changes[NETWORK] = [(before[NETWORK][chosen], after[NETWORK][chosen])]
        if self.before.views.tree:
            drawn = self.before.views.sample_values(len(self.generated), rng, unseen=True)
            before, of_trees = self.before.of_trees(drawn), self.after.of_trees(drawn)
            after |= of_trees
            for part in set(changes) & set(of_trees):
                changes[part].append((before[part], of_trees[part]))
        m = tables.shape[1]  # all parts get as many old scores
        middles_of_ranks = (np.arange(m) + 0.5) / m
        olds = []
        for part in self.after.counted:
            if part in changes:
                i = counted.index(part)
                olds_by = [carried(tables[i], *change) for change in changes[part]]
                olds.append(np.mean(olds_by, axis=0) + lifts[i])
            else:  # an earlier release may have fewer parts, or others
                olds.append(np.quantile(after[part], middles_of_ranks))
        return olds

    def joined(self, calibrated: Auto) -> tuple[Float64, Float64]:
        """Return the scores (g,) under both versions, by which the threshold is carried.

        `calibrated` is the score `after` with its calibration scores. Each tree's surprise of a
        vector is in both scores that of the champion. The views draw many pairs of values that
        never occur. Their surprise by the trees changes much with each update. That of real old
        normals hardly changes, because each part is calibrated.
        """
        after = calibrated.surprises(self.parts_after)
        if self.before is None or self.parts_before is None:
            return self.champion.score_scaled(self.generated), calibrated.of_surprises(after)
        counted = self.before.counted
        before = self.before.surprises(self.parts_before)
        for part in set(FEW_FEATURES) & set(counted) & set(calibrated.counted):
            after[calibrated.counted.index(part)] = before[counted.index(part)]
        return self.before.of_surprises(before), calibrated.of_surprises(after)


def lifts_of(counted: tuple[int, ...]) -> Float64:
    """Return what is added to the calibration scores of each of the `counted` parts, (k, 1)."""
    return np.where(np.isin(counted, FEW_FEATURES), LIFT, 0.0)[:, None]
