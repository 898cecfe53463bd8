"""Prepares an experience for learning: the rows to leave out, the scaler, the notes."""

from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import MIN_VECTORS
from models.parts.lineage import Note
from models.parts.scaler import Scaler
from models.parts.stray_values import StrayValues, find_strays
from models.parts.views import Views
from models.survey import notes
from models.survey.novelty import with_novelty
from models.version.version import Version

DRAWN = 2_000  # vectors drawn from the previous version to find the range that it learned


@dataclass(frozen=True, slots=True)
class PreparedExperience:
    """The new normals `new` (n, d) in the client's units, and what is known of each row.

    `classes` (n,) are their class labels; `vouched` (n,) marks the rows that a person labelled
    normal. `previous` already has the next version's scaler. `left_out` counts the rows that are
    not in `new`; `notes` say why, and what else a person should know. The last `drawn` rows of
    `new` came from the previous version's generator.
    """

    previous: Version | None
    new: Array
    classes: NDArray[np.int64] | None
    vouched: NDArray[np.bool_] | None
    left_out: int
    notes: tuple[Note, ...]
    drawn: int = 0

    def recorded(self, version: Version, parent: Version | None) -> Version:
        """Return the version with the facts about this experience added to its lineage."""
        lineage = version.lineage
        return version.with_lineage(
            parent=parent.sha256 if parent else None,
            learned=lineage.learned + self.left_out - self.drawn,
            n_new=lineage.n_new - self.drawn,
            notes=(*self.notes, *lineage.notes, *notes.on_outcome(lineage.evidence)),
            regimes=with_novelty(version, parent, self.new),
        )


class Features(NamedTuple):
    """The names of features, and which of them are categories."""

    names: tuple[str, ...]
    categories: tuple[int, ...] = ()

    def numbers(self, X: Array) -> tuple[Array, tuple[str, ...]]:
        """Return the columns of X (n, d) that are numbers, and their names."""
        if not self.categories:
            return X, self.names
        kept = np.setdiff1d(np.arange(X.shape[1]), self.categories)
        return X[:, kept], tuple(self.names[j] for j in kept)

    def words(self, X: Array) -> tuple[Array, tuple[str, ...]]:
        """Return the columns of X (n, d) that are categories, and their names."""
        return X[:, list(self.categories)], tuple(self.names[j] for j in self.categories)


def prepare(
    previous: Version | None,
    new: Array,
    classes: NDArray[np.int64] | None,
    vouched: NDArray[np.bool_] | None,
    features: Features,
) -> PreparedExperience:
    """Return the normals (n, d) prepared for learning on top of `previous`."""
    numbers, names = features.numbers(new)
    always = chain(notes.on_numbers(numbers, names), notes.on_words(*features.words(new)))
    if previous is None:
        stray = find_strays(numbers)
        if (~stray.rows).sum() < max(MIN_VECTORS, len(new) // 2):  # too many to be strays
            stray = StrayValues(np.zeros(len(new), bool), [])
        keep = ~stray.rows
        first = tuple(chain(notes.on_first_experience(numbers, stray, names), always))
        classes = classes if classes is None else classes[keep]
        vouched = vouched if vouched is None else vouched[keep]
        return PreparedExperience(None, new[keep], classes, vouched, int(stray.rows.sum()), first)
    if previous.network.shape.likelihood == "bernoulli":  # a picture's range is widened elsewhere
        return PreparedExperience(previous, new, classes, vouched, 0, tuple(always))
    scaler = extended_scaler(previous, new)
    later = tuple(chain(always, notes.on_range(numbers, scaler, names)))
    previous = replace(previous, scaler=scaler)
    return PreparedExperience(previous, new, classes, vouched, 0, later)


def extended_scaler(previous: Version, new: Array) -> Scaler:
    """Return the previous version's scaler, extended to the new normals (n, d)."""
    drawn = previous.with_faithful_draws().draw(DRAWN, np.random.default_rng(0))
    learned = np.concatenate([drawn, previous.scaler.transform(previous.reference.first_range)])
    known = np.stack([learned.min(axis=0), learned.max(axis=0)]).astype(np.float64)
    views = Views.from_tensors(previous.scoring)
    if views is not None and views.fine is not None:
        # A bend would end the linear relation of these features, such as a total and its parts.
        related = np.abs(views.fine.inward).max(axis=0) > 1.0
        if views.fine.holds(previous.scaler.transform(new)):
            known[:, related] = [[-np.inf], [np.inf]]
    return previous.scaler.extended(new, known, previous.reference.constant)
