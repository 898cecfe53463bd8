"""Rows of an experience that a person labelled normal: learned with a weight of their own.

By their number alone a few rows weigh nothing, least of all beside a long past. So they are
repeated in every epoch, and the new rows together weigh FLOOR at the least. None of them
calibrates: their scores say nothing of the normals that nobody looked at. Where they come almost
alone, vectors drawn from the previous version stand beside them and calibrate; but MANY that are
most of what came are a regime like any other.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import MIN_VECTORS, Config
from models.training import mixing
from models.training.plan import Plan
from models.training.prepared import Prepared

SHARE = 0.2  # of a training, the most that labelled rows weigh together
FLOOR = 0.2  # least weight of the new rows where some of them are labelled
HALF = 0.5  # of the new rows, the most that labelled ones are repeated to
MOST_COPIES = 200  # of one row
MANY = 200  # rows that can calibrate themselves where most of them are labelled


def copies(n: int, labelled: int, w_new: float) -> int:
    """Return how often each of the `labelled` of n new rows is repeated.

    >>> copies(n=1000, labelled=10, w_new=0.2), copies(n=1000, labelled=10, w_new=1.0)
    (98, 23)
    >>> copies(n=10, labelled=10, w_new=0.2)
    0
    """
    share = min(HALF, SHARE / w_new)
    more = (share * n - labelled) / (labelled * (1.0 - share))
    return int(min(max(more, 0.0), MOST_COPIES))


def topped_up(given: Prepared, seed: int) -> Prepared:
    """Return the rows to learn; MIN_VECTORS of them are unlabelled, as some must calibrate."""
    if given.previous is None or given.vouched is None or not given.vouched.any():
        return given
    missing = MIN_VECTORS - int((~given.vouched).sum())
    if missing <= 0 or len(given.new) >= MANY:
        return given
    drawn = given.previous.faithful().sample(missing, seed)
    return replace(
        given,
        new=np.concatenate([given.new, drawn]),
        vouched=np.concatenate([given.vouched, np.zeros(missing, bool)]),
        drawn=missing,
    )


def weights(
    asked: str | Mapping[str, float] | None,
    config: Config,
    learned: int,
    n: int,
    rows: NDArray[np.intp],
) -> str | Mapping[str, float] | None:
    """Return the weights asked for; with labelled `rows`, FLOOR for the new ones at the least."""
    if not len(rows):
        return asked
    w_new = max(mixing.weights(asked or config.weights, learned, n)[1], FLOOR if learned else 1.0)
    return {"w_prev": 1.0 - w_new, "w_new": w_new}


def emphasised(x: Array, plan: Plan, rows: NDArray[np.intp]) -> tuple[Array, Plan]:
    """Return x (n, d) with `rows` of it repeated, and the plan; no network leaves these out."""
    if not len(rows) or (len(rows) > HALF * len(x) and len(x) >= MANY):
        return x, plan
    folds = plan.folds.copy()
    folds[rows] = 0
    again = np.repeat(rows, copies(len(x), len(rows), plan.w_new))
    return (
        np.concatenate([x, x[again]]),
        replace(plan, folds=np.concatenate([folds, np.zeros(len(again), np.int64)])),
    )
