"""Fits the score `auto` to an experience: its views, and the calibration of its parts."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import Calibration, representable
from models.parts.carried_calibration import carried, mixed, repeated, resembling
from models.parts.carried_views import CarriedViews
from models.parts.views import Views
from models.scores.auto import (
    FEW_FEATURES,
    Auto,
    joined,
    least_deviation,
    needs,
    parts_of,
    uncalibrated,
)
from models.scores.by_name import Score, score_rows
from models.scores.by_regime import Surprise
from models.training.held_out import EqualRows, calibration_scores, disagreement
from models.training.labelled_rows import LEAST_P
from models.training.trained import Trained
from models.version.version import Version

MOST = 4_000  # the most old vectors, and the most new ones, to which a view is fitted
FEWEST_NEW = 2_000  # at least this many new vectors are chosen for a view, if there are as many
HIGHEST = 50  # so many rows of each part are compared with a table without their own score
NETWORK = 0  # the index of the network's part
# Added to a tree's calibration scores. A tree has few different scores, and the trees of the folds
# give slightly lower ones. So without it, each row with the highest score would exceed them all.
LIFT = 0.25
ENOUGH = 10  # rows for each feature: with fewer, every fold has different principal directions


class FittedScore(NamedTuple):
    """A version's `scoring`, and the held-out scores `held_out` (m,) of the training's `rows` (m,).

    `differs` is the result of `models.training.held_out.disagreement`.
    """

    scoring: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]
    held_out: Float64
    differs: float | None


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
    w_prev, w_new = plan.w_prev, plan.w_new
    n_new = min(len(x), max(FEWEST_NEW, int(MOST * w_new)))
    chosen = np.zeros(len(x), bool)
    chosen[rng.permutation(len(x))[:n_new]] = True
    old = _old_vectors(trained, champion, min(MOST, round(n_new * w_prev / w_new)), rng)
    past_views = _past_views(trained, champion) if len(old) else None
    views, rows, parts = _fit_and_score(trained, old, past_views, chosen)
    serving = uncalibrated(trained.networks[0], views)
    as_served = parts_of(serving, x[rows])
    parts = calibration_scores(parts, as_served, EqualRows.find(x).at(rows))
    counted = serving.counted
    differs = disagreement(_joined(parts, parts, counted), _joined(parts, as_served, counted))
    if differs is not None:
        parts = np.maximum(parts, as_served)
    entries = parts + _lifts(counted)
    tables, times = list(entries), 1
    if champion and len(generated) and trained.past.learned:
        olds = _carried_tables(champion, serving, generated, rng)
        share_old, least = shares
        copies = repeated(entries, least, len(olds[0]))
        times = copies.shape[1] // parts.shape[1]
        pairs = zip(olds, copies, strict=True)
        tables = [mixed(old, new, share_old).scores for old, new in pairs]
    if len(trained.labelled):
        tables = _with_labelled(tables, parts_of(serving, x[trained.labelled]))
    scoring = needs(views, tables)
    # Networks and views of folds learned fewer rows than those that serve, so on average a part's
    # scores are higher. That makes up for a row's own score in the table.
    times = times if plan.networks == 1 else 0
    scores = unseen(scoring["auto.tables"], parts, times, counted)
    return FittedScore(scoring, rows, scores, differs)


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


def _carried_tables(
    champion: Version, serving: Auto, generated: Array, rng: np.random.Generator
) -> list[Float64]:
    """Return the old scores of each part under `serving`; `generated` (g, d) show the changes.

    Many generated vectors have the score of a real one, but lie far from all real ones, and there
    the network's scores change in another way. So for the network's part only the vectors count
    that `resembling` chooses. For the trees' parts, two predictions are averaged: generated vectors
    have many pairs of values that never occur, and vectors drawn from the champion's tree have too
    few that are new.
    """
    after = parts_of(serving, generated)
    earlier_views = Views.from_tensors(champion.scoring)
    if earlier_views is None:
        # A champion of another kind has no such scores: those of drawn vectors are used.
        return [np.sort(scores) for scores in after]
    earlier = Auto.from_tensors(champion.network, champion.scoring)
    before = parts_of(earlier, generated)
    # The tables of the trees are lifted; the scores of the generated vectors are not.
    lifts = _lifts(earlier.counted)
    tables = champion.scoring["auto.tables"] - lifts
    chosen = resembling(before, tables, rng)
    changes = {part: [(before, after)] for part in serving.counted}
    changes[NETWORK] = [(before[:, chosen], after[:, chosen])]
    if earlier_views.tree:
        drawn = earlier_views.sample_values(len(generated), rng, unseen=True)
        of_trees = parts_of(earlier, drawn), parts_of(serving, drawn)
        for part in set(FEW_FEATURES) & set(serving.counted):
            changes[part].append(of_trees)
    m = tables.shape[1]  # all parts get as many old scores
    middles_of_ranks = (np.arange(m) + 0.5) / m
    olds = []
    for i, part in enumerate(serving.counted):
        if part in earlier.counted:
            j = earlier.counted.index(part)
            olds_by = [carried(tables[j], was[j], now[i]) for was, now in changes[part]]
            olds.append(np.mean(olds_by, axis=0) + lifts[j])
        else:  # an earlier release may have fewer parts, or others
            _, now = changes[part][-1]
            olds.append(np.quantile(now[i], middles_of_ranks))
    return olds


def scores_for_carrying(champion: Version, score: Score, generated: Array) -> Float64:
    """Return the new score (g,) of generated vectors (g, d), by which the threshold is carried.

    In the score `auto`, each tree's surprise of a vector is that of the champion. The views draw
    many pairs of values that never occur. Their surprise by the trees changes much with each
    update. That of real old normals hardly changes, because each part is calibrated.
    """
    if not isinstance(score, Auto):
        return score_rows(score, generated)
    surprises = score.surprises(parts_of(score, generated))
    views = Views.from_tensors(champion.scoring)
    if views is not None and views.tree:
        earlier = Auto.from_tensors(champion.network, champion.scoring)
        before = earlier.surprises(parts_of(earlier, generated))
        for part in set(FEW_FEATURES) & set(earlier.counted) & set(score.counted):
            surprises[score.counted.index(part)] = before[earlier.counted.index(part)]
    return representable(joined(surprises, score.counted))


def _lifts(counted: tuple[int, ...]) -> Float64:
    """Return what is added to the calibration scores of each of the `counted` parts, (k, 1)."""
    return np.where(np.isin(counted, FEW_FEATURES), LIFT, 0.0)[:, None]


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


def _past_views(trained: Trained, champion: Version | None) -> Views | None:
    """Return the views from which old vectors are drawn, None if they are not drawn from views."""
    if champion is None or not trained.past.learned or trained.past.exemplars is not None:
        return None
    return Views.from_tensors(champion.scoring)


def _with_labelled(tables: list[Float64], parts: Float64) -> list[Float64]:
    """Return the tables with entries for `parts`, the scores of m labelled rows, (k, m)."""
    return [
        np.concatenate([table, _labelled_entries(scores, len(table))])
        for table, scores in zip(tables, parts, strict=True)
    ]


def _labelled_entries(scores: Float64, n: int) -> Float64:
    """Return the entries for rows labelled normal, with these `scores`, in a table of n scores.

    There are so many entries that no labelled row has a p-value below LEAST_P. With one entry
    each, labelled rows would be the rarest of all normals and would go on alarming.
    """
    return np.full(math.ceil(n * LEAST_P / (1.0 - LEAST_P)), scores.max())


def _joined(tables: Float64, parts: Float64, counted: tuple[int, ...]) -> Float64:
    """Return the score (n,) of rows with the scores `parts` (k, n), calibrated by `tables`."""
    surprises = [
        Surprise(Calibration(np.sort(representable(table))))(representable(scores))
        for table, scores in zip(tables, parts, strict=True)
    ]
    return joined(np.stack(surprises), counted)


def _old_vectors(
    trained: Trained, champion: Version | None, n: int, rng: np.random.Generator
) -> Array:
    """Return n vectors in place of the old normals, scaled (n, d); none if there is no past."""
    past = trained.past
    if not n or not past.learned or champion is None:
        return trained.x[:0]
    if past.exemplars is not None:
        return past.exemplars[rng.integers(len(past.exemplars), size=n)]
    views = _past_views(trained, champion)
    if views is None:
        return (past.generator or champion).draw(n, rng)
    return champion.scaler.valid(views.sample(n, rng))
