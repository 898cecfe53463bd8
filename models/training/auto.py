"""Fits the score `auto` to an experience: its views, and the calibration of its parts."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Calibration, representable
from models.parts.carried_calibration import mixed, repeated
from models.parts.carried_views import CarriedViews
from models.parts.views import Views
from models.scores.auto import (
    Auto,
    joined,
    least_deviation,
    lifts_of,
    needs,
    parts_of,
    uncalibrated,
)
from models.scores.by_name import Score
from models.scores.by_regime import Surprise
from models.training.carried_parts import GeneratedScores
from models.training.held_out import EqualRows, calibration_scores, disagreement
from models.training.labelled_rows import FLOOR, LEAST_P
from models.training.trained import Trained
from models.version.version import Version

MOST = 4_000  # the most old vectors, and the most new ones, to which a view is fitted
FEWEST_NEW = 2_000  # at least this many new vectors are chosen for a view, if there are as many
HIGHEST = 50  # so many rows of each part are compared with a table without their own score
ENOUGH = 10  # rows for each feature: with fewer, every fold has different principal directions


class FittedScore(NamedTuple):
    """A version's `score`, and the arrays `scoring` that an artifact stores of it.

    `held_out` (m,) are the held-out scores of the training's `rows` (m,), and `differs` is the
    result of `models.training.held_out.disagreement`. The vectors (g, d) that the champion
    generated have the scores `before` (g,) under it and `after` (g,) under the version; without a
    champion there are none.
    """

    score: Score
    scoring: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]
    held_out: Float64
    differs: float | None
    before: Float64
    after: Float64


def fit(
    trained: Trained,
    champion: Version | None,
    generated: Array,
    shares: tuple[float, float],
) -> FittedScore:
    """Fit the score to a training's old and new vectors; calibrate it on held-out ones.

    `champion` is the previous version, if any; `generated` (g, d), scaled, are vectors that it
    draws. How their scores change shows how to convert each part's old calibration. `shares` are
    the share of old scores in a calibration, and the smallest share of new ones (0: no minimum).
    The rows that a network left out are scored with views that were fitted without these rows.
    """
    plan, x = trained.plan, trained.x
    rng = np.random.default_rng([plan.seed, 13])
    n, w_new = _rows_and_weight(trained)
    n_new = min(n, max(FEWEST_NEW, int(MOST * w_new)))
    chosen = np.zeros(len(x), bool)
    chosen[rng.permutation(n)[:n_new]] = True
    n_old = round(n_new * (1.0 - w_new) / w_new)
    old, past_views = _old_vectors(trained, champion, min(MOST, n_old), rng)
    views, rows, parts = _fit_and_score(trained, old, past_views, chosen)
    serving = uncalibrated(trained.networks[0], views)
    as_served = parts_of(serving, x[rows])
    parts = calibration_scores(parts, as_served, EqualRows.find(x).at(rows))
    counted = serving.counted
    differs = disagreement(_joined(parts, parts, counted), _joined(parts, as_served, counted))
    if differs is not None:
        parts = np.maximum(parts, as_served)
    entries = parts + lifts_of(counted)
    tables, times = list(entries), 1
    by_parts = GeneratedScores.measure(champion, serving, generated) if champion else None
    if by_parts and trained.past.learned:
        olds = by_parts.carried_tables(rng)
        share_old, least = shares
        copies = repeated(entries, least, len(olds[0]))
        times = copies.shape[1] // parts.shape[1]
        pairs = zip(olds, copies, strict=True)
        tables = [mixed(old, new, share_old).scores for old, new in pairs]
    if len(trained.labelled):
        labelled = parts_of(serving, x[trained.labelled])
        tables = [_with_labelled(*pair) for pair in zip(tables, labelled, strict=True)]
    scoring = needs(views, tables)
    score = Auto(trained.networks[0], views, counted, list(scoring["auto.tables"]))
    # Networks and views of folds learned fewer rows than those that serve, so on average a part's
    # scores are higher. That makes up for a row's own score in the table.
    times = times if plan.networks == 1 else 0
    held_out = unseen(scoring["auto.tables"], parts, times, counted)
    before, after = by_parts.joined(score) if by_parts else (np.empty(0), np.empty(0))
    return FittedScore(score, scoring, rows, held_out, differs, before, after)


def _rows_and_weight(trained: Trained) -> tuple[int, float]:
    """Return how many rows of the training the views learn, the first ones, and their weight.

    A network learns copies of labelled rows, and all new rows with a least weight. The views count
    each row once. Otherwise ten labelled rows would weigh as much as hundreds of others, and the
    trees would forget which pairs of values are usual.
    """
    n, w_new = len(trained.x), trained.plan.w_new
    if len(trained.labelled):
        kept = trained.past.vectors
        n = len(trained.new) + (0 if kept is None else len(kept))
        if w_new <= FLOOR:
            w_new = n / (n + trained.past.learned)
    return n, w_new


def _fit_and_score(
    trained: Trained, old: Array, past_views: Views | None, chosen: NDArray[np.bool_]
) -> tuple[Views, NDArray[np.int64], Float64]:
    """Fit views to `old` (k, d) and to the `chosen` rows (n,); score each row that is left out.

    `past_views` are those of `_views`. Returns the views that serve, the indices (m,) of the rows
    that networks left out, and the scores of the parts of these rows, (parts, m), by views that
    were fitted without them.
    """
    plan, x = trained.plan, trained.x

    def learned_by(m: int) -> Array:
        return x[chosen & ~plan.left_out(m)]

    fit_views = partial(_views, past_views, old, plan.seed, least_deviation(trained.networks[0]))
    serving, refitted = fit_views(learned_by(0))
    rows, scores = [], []
    for m, network in enumerate(trained.networks):
        left_out = np.flatnonzero(plan.left_out(m))
        if not len(left_out):
            continue
        views = serving
        if m:
            learned = learned_by(m)
            # The serving views saw the rows that are left out here. A refit in one step forgets
            # them only if distinct rows are many. Few rows are fitted closely one by one, so for
            # them the whole fit is repeated. Carried views are fitted to new rows alone.
            fitted_to = learned if past_views is not None else np.concatenate([old, learned])
            distinct = EqualRows.find(fitted_to).distinct
            few = distinct < max(ENOUGH * x.shape[1], len(fitted_to) // 2)
            views = fit_views(learned, serving)[0] if few else refitted(learned)
        rows.append(left_out)
        scores.append(parts_of(uncalibrated(network, views), x[left_out]))
    return serving, np.concatenate(rows), np.concatenate(scores, axis=1)


def unseen(tables: Float64, parts: Float64, times: int, counted: tuple[int, ...]) -> Float64:
    """Return the score (n,) of held-out rows, compared with tables without their own scores.

    `parts` (k, n) are the rows' scores by the `counted` parts; `tables` (k, m) contain each of them
    up to `times` times. A new row may exceed all scores of a part's table, and with few scores that
    happens often. A row whose own score is in the table never exceeds all of them. The HIGHEST rows
    of a part are therefore compared with the table without their own score. For other rows that
    score makes hardly any difference. The tail stays that of the whole table: fitted without
    the largest of few heavy-tailed scores, it would give the row of this score far too high a
    surprise.
    """
    surprises = np.empty_like(parts)
    for i, (table, scores) in enumerate(zip(np.sort(tables), representable(parts), strict=True)):
        calibration = Calibration(table)
        surprises[i] = Surprise(calibration)(scores)
        for j in scores.argsort()[-HIGHEST:]:
            first, end = table.searchsorted(scores[j]), table.searchsorted(scores[j], "right")
            if copies := min(int(end - first), times):
                others = calibration.without(slice(first, first + copies))
                surprises[i, j] = Surprise(others)(scores[j : j + 1])[0]
    return representable(joined(surprises, counted))


def _views(
    past_views: Views | None,
    old: Array,
    seed: int,
    faint: float,
    new: Array,
    like: Views | None = None,
) -> tuple[Views, Callable[[Array], Views]]:
    """Return the views of old and new scaled vectors, and a function that refits them.

    The function takes other new vectors and fits in one step. `past_views` are the views from which
    `old` was drawn; None if it was not drawn from views. `like` and `faint` are those of
    `Views.fit`.
    """
    if past_views is not None:
        carried_views = CarriedViews.fit(past_views, old, new, seed, like, faint)
        return carried_views.views, carried_views.refitted
    views = Views.fit(np.concatenate([old, new]), seed, like, faint=faint)
    return views, lambda others: views.refitted(np.concatenate([old, others]))


def _with_labelled(table: Float64, scores: Float64) -> Float64:
    """Return a part's table with entries for rows labelled normal that have these `scores` (m,).

    There are so many entries that no labelled row has a p-value below LEAST_P. With one entry
    each, labelled rows would be the rarest of all normals and would go on alarming.
    """
    more = math.ceil(len(table) * LEAST_P / (1.0 - LEAST_P))
    return np.concatenate([table, np.full(more, scores.max())])


def _joined(tables: Float64, parts: Float64, counted: tuple[int, ...]) -> Float64:
    """Return the score (n,) of rows with the scores `parts` (k, n), calibrated by `tables`."""
    surprises = [
        Surprise(Calibration(np.sort(representable(table))))(representable(scores))
        for table, scores in zip(tables, parts, strict=True)
    ]
    return joined(np.stack(surprises), counted)


def _old_vectors(
    trained: Trained, champion: Version | None, n: int, rng: np.random.Generator
) -> tuple[Array, Views | None]:
    """Return n vectors in place of the old normals, scaled (n, d), and the views that drew them.

    There are no vectors if there is no past, and no views if something else drew the vectors.
    """
    past = trained.past
    if not n or not past.learned or champion is None:
        return trained.x[:0], None
    if past.exemplars is not None:
        return past.exemplars[rng.integers(len(past.exemplars), size=n)], None
    views = Views.from_tensors(champion.scoring)
    if views is None:
        return (past.generator or champion).draw(n, rng), None
    return champion.scaler.valid(views.sample(n, rng)), views
