"""Notes for people about the data that a version learned, for the version's record.

A note names the features, what was done, and what the reader can do about it. It contains no value
of the data.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.lineage import Evidence, Note
from models.parts.scaler import KNEE, Scaler, middle_range
from models.parts.statistics import binomial_at_most
from models.parts.stray_values import StrayValues
from models.survey.counters import (
    are_seconds,
    are_small_units,
    comes_in_stretches,
    is_counter,
    restarts_rarely,
)
from models.survey.trends import with_trend

NAMED = 8  # the most features named in a note; the others are counted
INTEGERS = 2.0**24  # from this size on, float32 rounds neighbouring whole numbers to one
COARSE = 1e-3  # a float32 step this large, relative to a deviation, is visible
STILL = 0.05  # a note is written if more than this share of the experience still alarms
FEW_INDEPENDENT = 100  # fewer independent rows do not show a rate of 1 %
# A note is written if TIMES as many rows of a regime as expected have a p-value of at most each of
# these levels, at the first level with the chance SURE that fewer rows would.
UNUSUAL, TIMES, SURE = (0.1, 0.03, 0.01), 2.0, 0.999
UNFIT = 0.01  # a note is written if more than this share of a feature's values is out of range


def on_first_experience(X: Array, stray: StrayValues, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on the first normals X (n, d), with the stray values among them."""
    yield from _note(
        "left_out", names, stray.columns,
        f"{int(stray.rows.sum())} of {len(X)} rows were not learned and do not count in the "
        "calibration, because their value of {features}, alone or with the row's other values, "
        "is far from all other rows. It may be a fault, a spike, or a code for 'no value'. If "
        "such rows are normal, send them again as one batch. If not, leave them out, or send "
        "null with missing: impute.",
    )  # fmt: skip
    kept = X[~stray.rows].astype(np.float64)
    low, high = middle_range(kept)
    least, most = np.quantile(kept, (0.001, 0.999), axis=0)
    pulled = np.flatnonzero((low > least) | (high < most))
    yield from _note(
        "clipped", names, pulled,
        "Some values of {features} are far outside the range of the others. To compute the "
        "scale, they were clipped at 20 times the range of the middle half. They were learned "
        "as they are.",
    )  # fmt: skip


def on_numbers(X: Array, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on numbers X (n, d): times, numbers that float32 rounds, counters and trends."""
    step = np.spacing(np.abs(X).max(axis=0))
    deviation = X.std(axis=0, dtype=np.float64)
    coarse = (deviation > 0.0) & (step > COARSE * deviation)
    times = np.array(
        [are_small_units(x) or (c and are_seconds(x)) for x, c in zip(X.T, coarse, strict=True)],
        bool,
    )
    yield from _note(
        "time", names, np.flatnonzero(times),
        "The numbers of {features} look like times since 1970. Later times are outside the "
        "learned range, so all later rows will alarm. Leave the time out, and send it as the "
        "timestamp of each row.",
    )  # fmt: skip
    coarse &= ~times
    yield from _note(
        "precision", names, np.flatnonzero(coarse),
        "The numbers of {features} are very large compared with their differences. Vectors are "
        "kept as float32, which rounds neighbouring values to the same number. Send the "
        "difference from a fixed number near them, or from the row before.",
    )  # fmt: skip
    equal = (deviation == 0.0) & (np.abs(X[0]) >= INTEGERS) & ~times
    yield from _note(
        "precision", names, np.flatnonzero(equal),
        "All numbers of {features} are equal. Vectors are kept as float32, which rounds whole "
        "numbers of this size to the same number. If the numbers that were sent differ, send "
        "the difference from a fixed number near them, or from the row before.",
    )  # fmt: skip
    counters = [j for j in np.flatnonzero(~times).tolist() if is_counter(X[:, j], [slice(None)])]
    yield from _note(
        "counter", names, counters,
        "{features} only rises or only falls from row to row, like a time or a counter. So "
        "later rows will be outside the learned range, and will alarm. Send the difference "
        "from the row before, or leave it out.",
    )  # fmt: skip
    restarting = [j for j, x in enumerate(X.T) if restarts_rarely(x, [slice(None)])]
    yield from _note(
        "counter", names, restarting,
        "{features} rises or falls from row to row and starts again only a few times, like a "
        "counter. Later rows may be outside the learned range, and will alarm. Send the "
        "difference from the row before, or leave it out.",
    )  # fmt: skip
    others = np.setdiff1d(np.arange(X.shape[1]), [*np.flatnonzero(times), *counters, *restarting])
    yield from _note(
        "trend", names, others[with_trend(X[:, others])],
        "{features} rises or falls slowly from the first rows to the last. So later rows leave the "
        "learned range, and will alarm more often than configured. Learn often, or use context, "
        "which compares a value with earlier ones.",
    )  # fmt: skip


def on_words(X: Array, names: Sequence[str]) -> Iterator[Note]:
    """Yield a note on categories X (n, c) whose words do not come back, as dates do not."""
    stretches = [j for j, x in enumerate(X.T) if comes_in_stretches(x)]
    yield from _note(
        "new_words", names, stretches,
        "No word of {features} comes back after another word, as with dates, releases or "
        "batches. Rows with a new word will alarm. If a new word is no fault, leave it out.",
    )  # fmt: skip


def on_range(X: Array, scaler: Scaler, names: Sequence[str]) -> Iterator[Note]:
    """Yield notes on features of new normals X (n, d) outside the first experience's range."""
    if scaler.piecewise is None:
        return
    m = X.shape[1]  # in scaled vectors the numbers come first
    y = np.zeros((len(X), len(scaler.scale)))
    y[:, :m] = (X - scaler.location[:m]) / scaler.scale[:m]
    scaled = np.abs(scaler.piecewise(y))[:, :m]
    out = np.quantile(scaled, 1.0 - UNFIT, axis=0) > KNEE
    yield from _note(
        "range", names, np.flatnonzero(out),
        "The ranges of {features} in the experiences are too different for one scale, so "
        "values far outside are distinguished only coarsely. Start a new detector with a first "
        "batch that covers all ranges.",
    )  # fmt: skip
    widened = scaler.piecewise.bent[:m] & ~out
    yield from _note(
        "widened", names, np.flatnonzero(widened),
        "New values of {features} are far outside the range of the first experience, so its "
        "scale was widened. If anomalies of the first experience are now detected less often, "
        "start a new detector with a score for each regime, such as elbo+regime.",
    )  # fmt: skip


def on_calibration(differs: float | None) -> Iterator[Note]:
    """Yield a note if the calibrating networks differ much from the serving network."""
    if differs is not None:
        yield Note(
            kind="disagreement", features=(),
            sentence="The networks that calibrate differ from the network that serves, which would "
            f"have alarmed on {100 * differs:.1f} % of the rows that it learned. So each row now "
            "counts with the larger of both scores, and fewer normals alarm than configured. More "
            "rows help.",
        )  # fmt: skip


def on_dependent_rows(worth: int, rows: int) -> Iterator[Note]:
    """Yield a note if `rows` rows that calibrate are worth few independent rows."""
    if worth < min(FEW_INDEPENDENT, rows):
        yield Note(
            kind="dependent_rows", features=(),
            sentence="Each row is like the rows before it, so the rows show the range of normals "
            f"only as well as about {worth} independent rows would. The threshold is therefore "
            "higher, and later rows may still alarm more often than configured. Learn rows of a "
            "longer time.",
        )  # fmt: skip


def on_unusual_regimes(regimes: NDArray[np.int64], p_values: Float64) -> Iterator[Note]:
    """Yield a note on regimes of which many held-out rows are unusual.

    `regimes` (n,) is the regime of each row, and `p_values` (n,) are those by one calibration.
    """
    often = []
    for number in np.unique(regimes).tolist():
        p = p_values[regimes == number]
        shares = [float((p <= level).mean()) / level for level in UNUSUAL]
        fewer = binomial_at_most(int((p <= UNUSUAL[0]).sum()) - 1, len(p))(UNUSUAL[0])
        if min(shares) >= TIMES and fewer > SURE:
            often.append(str(number))
    if often:
        yield Note(
            kind="unusual_regime", features=(),
            sentence=f"Normal rows of regime {', '.join(often)} are rarer than others, and will "
            "alarm more often than configured, because one threshold serves all rows. Send more "
            "such rows as one batch, or use a score for each regime, such as auto+regime.",
        )  # fmt: skip


def on_outcome(evidence: Evidence) -> Iterator[Note]:
    """Yield a note if too much of a learned experience still alarms."""
    unlearned = evidence.unlearned or 0.0
    if unlearned > STILL:
        yield Note(
            kind="still_alarming", features=(),
            sentence=f"{100 * unlearned:.0f} % of this experience still has a p-value of at most "
            "0.01. Send more rows like it, or retrain with a larger w_new.",
        )  # fmt: skip


def _note(
    kind: str, names: Sequence[str], columns: Iterable[int] | NDArray[np.int64], sentence: str
) -> Iterator[Note]:
    """Yield a note with the names of `columns` in place of {features}, if there are any."""
    features = tuple(names[j] for j in columns)
    shown = ", ".join(f"'{name}'" for name in features[:NAMED])
    if len(features) > NAMED:
        shown += f" and {len(features) - NAMED} more"
    if features:
        sentence = sentence.replace("{features}", shown)
        yield Note(kind=kind, features=features[:NAMED], sentence=sentence)
