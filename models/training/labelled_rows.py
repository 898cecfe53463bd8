"""Rows of an experience that a person labelled normal; they have a weight of their own.

By their number alone, a few rows have almost no weight beside a long past. Labelled rows are
therefore repeated in every epoch, and all new rows together weigh at least FLOOR. Labelled rows are
not held out: their scores are not typical of unlabelled normals. They have entries in the
calibration instead, see `calibrated_with`. If an experience has few other rows, vectors drawn from
the previous version are added for the calibration. An experience of at least MANY rows, most of
them labelled, is learned like any other.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import MIN_VECTORS, Config
from models.parts.calibration import Calibration
from models.training import mixing
from models.training.plan import Plan
from models.training.prepared import PreparedExperience
from models.version.old_normals import resembling_old_normals

SHARE = 0.2  # the largest weight of all labelled rows together in a training
FLOOR = 0.2  # the least weight of the new rows if some of them are labelled
HALF = 0.5  # labelled rows are repeated up to this share of the new rows
MOST_COPIES = 200  # the most copies of one row
MANY = 200  # from this many rows on, an experience of mostly labelled rows calibrates itself
# No labelled row has a p-value below LEAST_P. That moves a p-value of 0.005 by LARGEST_FACTOR, the
# most that labels may move it.
LEAST_P = 0.05
LARGEST_FACTOR = 10.0


def copies(n: int, labelled: int, w_new: float) -> int:
    """Return how many copies to add of each of the `labelled` rows among n new rows.

    >>> copies(n=1000, labelled=10, w_new=0.2), copies(n=1000, labelled=10, w_new=1.0)
    (98, 23)
    >>> copies(n=10, labelled=10, w_new=0.2)
    0
    """
    share = min(HALF, SHARE / w_new)
    more = (share * n - labelled) / (labelled * (1.0 - share))
    return int(min(max(more, 0.0), MOST_COPIES))


def with_drawn_rows(given: PreparedExperience, seed: int) -> PreparedExperience:
    """Return the rows to learn, with drawn ones if fewer than MIN_VECTORS can calibrate."""
    if given.previous is None or given.vouched is None or not given.vouched.any():
        return given
    missing = MIN_VECTORS - int((~given.vouched).sum())
    if missing <= 0 or len(given.new) >= MANY:
        return given
    # A few rows must calibrate the version, so they have to score like real ones.
    old_normals = resembling_old_normals(given.previous, missing, np.random.default_rng(seed))
    drawn = given.previous.in_client_units(old_normals)
    return replace(
        given,
        new=np.concatenate([given.new, drawn]),
        vouched=np.concatenate([given.vouched, np.zeros(missing, bool)]),
        drawn=missing,
    )


def weights(
    given: str | Mapping[str, float] | None,
    config: Config,
    learned: int,
    n: int,
    rows: NDArray[np.intp],
) -> str | Mapping[str, float] | None:
    """Return the `given` weights; with labelled `rows`, new rows weigh at least FLOOR."""
    if not len(rows):
        return given
    w_new = max(mixing.weights(given or config.weights, learned, n)[1], FLOOR if learned else 1.0)
    return {"w_prev": 1.0 - w_new, "w_new": w_new}


def with_copies(x: Array, plan: Plan, rows: NDArray[np.intp]) -> tuple[Array, Plan]:
    """Return x (n, d) with copies of `rows` appended, and a plan that never leaves them out."""
    if not len(rows) or (len(rows) > HALF * len(x) and len(x) >= MANY):
        return x, plan
    folds = plan.folds.copy()
    folds[rows] = 0
    repeated = np.repeat(rows, copies(len(x), len(rows), plan.w_new))
    return (
        np.concatenate([x, x[repeated]]),
        replace(plan, folds=np.concatenate([folds, np.zeros(len(repeated), np.int64)])),
    )


def calibrated_with(scores: Float64, calibration: Calibration) -> Calibration:
    """Return the calibration with entries for labelled rows that have these `scores` (m,).

    Each part of the score `auto` is calibrated with the labelled rows, too. But if they are rare to
    every part, their scores lie close to the threshold, and some of them would go on alarming. So
    many entries are added that no labelled row has a p-value below LEAST_P. A score whose p-value
    would move by more than LARGEST_FACTOR gets no entries.
    """
    p = calibration.p_values(scores)
    movable = p >= LEAST_P / LARGEST_FACTOR
    if not movable.any():
        return calibration
    more = math.ceil((calibration.n + 1) * (LEAST_P - p[movable].min()) / (1.0 - LEAST_P))
    entries = np.full(max(more, 0), scores[movable].max())
    return Calibration(np.sort(np.concatenate([calibration.scores, entries])))
