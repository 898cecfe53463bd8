"""Notes for people about the data that a version learned, for the version's record.

Each note names the features, says what was done, and what to do about it. It contains no value. The
kind of a note tells which of these functions wrote it.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.lineage import Evidence, Note
from models.parts.scaler import KNEE, Scaler, middle
from models.parts.strays import Strays
from models.survey.counters import is_counter

NAMED = 8  # the most features named in a note; the others are counted
COARSE = 1e-3  # a float32 step this large, relative to a deviation, is visible
# a note is written if this share of the experience still alarms: five times the usual rate
STILL = 0.05
UNFIT = 0.01  # a note is written if this share of a feature's values lies beyond its range


def first(X: Array, found: Strays, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on the first normals X (n, d), with the stray values among them."""
    if found.rows.any():
        yield _note(
            "left_out", names, found.columns,
            f"{int(found.rows.sum())} of {len(X)} rows were not learned and do not count in the "
            "calibration: {features} lies far from all other rows there, as a code for 'no value' "
            "or a spike does. If such rows are normal, send them again as a batch of their own; "
            "if not, leave them out, or send null with missing: impute.",
        )  # fmt: skip
    kept = X[~found.rows].astype(np.float64)
    low, high = middle(kept)
    least, most = np.quantile(kept, (0.001, 0.999), axis=0)
    pulled = np.flatnonzero((low > least) | (high < most))
    if len(pulled):
        yield _note(
            "clipped", names, pulled,
            "The scale of {features} was taken from the values near its middle; those further out "
            "than 20 times the range of the middle half were pulled in for it. They were learned.",
        )  # fmt: skip


def any_time(X: Array, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on normals X (n, d) of any experience."""
    step = np.spacing(np.abs(X).max(axis=0))
    deviation = X.std(axis=0, dtype=np.float64)
    coarse = (deviation > 0.0) & (step > COARSE * deviation)
    if coarse.any():
        yield _note(
            "precision", names, np.flatnonzero(coarse),
            "The numbers of {features} are so large beside what they vary by that float32, in "
            "which vectors are kept, cannot tell neighbours apart. Send the difference from a "
            "fixed number near them instead, or from the row before.",
        )  # fmt: skip
    counters = [j for j in range(X.shape[1]) if is_counter(X[:, j], [slice(None)])]
    if counters:
        yield _note(
            "counter", names, counters,
            "{features} only ever rises or falls from row to row, as a time or a counter does: "
            "what comes next lies outside of what was learned and will alarm. Send the "
            "difference from the row before, or leave it out.",
        )  # fmt: skip


def fit(X: Array, scaler: Scaler, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on features of new normals X (n, d) outside the first experience's range."""
    if scaler.bend is None:
        return
    m = X.shape[1]  # in scaled vectors the numbers come first
    y = np.zeros((len(X), len(scaler.scale)))
    y[:, :m] = (X - scaler.location[:m]) / scaler.scale[:m]
    scaled = np.abs(scaler.bend(y))[:, :m]
    out = np.quantile(scaled, 1.0 - UNFIT, axis=0) > KNEE
    if out.any():
        yield _note(
            "range", names, np.flatnonzero(out),
            "{features} lies beyond more ranges than one scale can hold: there it is told apart "
            "only coarsely. Start a new detector with a first batch that spans all.",
        )  # fmt: skip
    widened = scaler.bend.bent[:m] & ~out
    if widened.any():
        yield _note(
            "widened", names, np.flatnonzero(widened),
            "What was learned of {features} lies far outside the range of the first experience, "
            "which was widened for it. If anomalies of the first experience are found less often "
            "since, start a new detector with a first batch that spans both.",
        )  # fmt: skip


def calibrated(differs: float | None) -> Iterator[Note]:
    """Yield a note if the calibrating networks differ much from the serving network."""
    if differs is not None:
        yield Note(
            kind="disagreement", features=(),
            sentence="The networks that calibrate differ from the one that serves: it would have "
            f"alarmed on {100 * differs:.1f} % of the rows that it learned. Of each row the larger "
            "of both scores counts now, so that the rate errs to the safe side. More rows help.",
        )  # fmt: skip


def outcome(evidence: Evidence) -> Iterator[Note]:
    """Yield a note if too much of a learned experience still alarms."""
    unlearned = evidence.unlearned or 0.0
    if unlearned > STILL:
        yield Note(
            kind="still_alarming", features=(),
            sentence=f"{100 * unlearned:.0f} % of this experience still has a p-value of .01 and "
            "less. Send more rows like it, or retrain with a larger w_new.",
        )  # fmt: skip


def _note(
    kind: str, names: Sequence[str], columns: Iterable[int] | NDArray[np.int64], sentence: str
) -> Note:
    features = tuple(names[j] for j in columns)
    shown = ", ".join(f"'{name}'" for name in features[:NAMED])
    if len(features) > NAMED:
        shown += f" and {len(features) - NAMED} more"
    return Note(
        kind=kind, features=features[:NAMED], sentence=sentence.replace("{features}", shown)
    )
