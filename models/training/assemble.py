"""Builds a version from trained networks: latents, calibration, reference, lineage, evidence."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.config import Config
from models.parts.calibration import Calibration, representable
from models.parts.carried_calibration import GENERATED, carried, mixed, repeated
from models.parts.dependent_rows import independent_rows, narrowed, together, widened
from models.parts.lineage import Lineage, Training
from models.parts.mixture import Mixture
from models.parts.network import Network, posterior_codes
from models.scores import by_regime
from models.scores.by_name import (
    NETWORK_ALONE,
    base_score,
    score_arrays,
    score_named,
    score_rows,
)
from models.strategies.exemplars import Candidates
from models.survey import notes
from models.survey.survey import survey
from models.training import auto, labelled_rows
from models.training.false_incidents import with_incidents_on_held_out
from models.training.held_out import EqualRows, calibration_scores, disagreement
from models.training.mixing import LEAST_NEW
from models.training.plan import FOLDS
from models.training.runs_of_rows import depend_on_earlier
from models.training.trained import Trained
from models.training.training_record import alarm_evidence, lineage_of, reference_of
from models.version.old_normals import like_old_normals
from models.version.version import Version

MAX_CODES = 8_000  # the most codes to which the latent mixture is fitted
# The least share of a new regime in the calibration, however many regimes there are.
LEAST_CALIBRATING = 0.1


def assemble(trained: Trained) -> Version:
    """Return the version whose network is `networks[0]`, calibrated on held-out vectors."""
    score, policy = trained.config.score, trained.config.threshold
    if score == base_score(score):
        calibrated = _calibrate(trained)
        version = calibrated.version
        if trained.previous is None:  # later, the calibration is of other rows, too
            version = _with_note_on_regimes(calibrated, trained)
    else:
        plain = replace(trained.config, score=base_score(score))
        value = plain.threshold.get("value")
        if isinstance(value, int | float):  # the value is a -log p, not a plain score
            plain = replace(plain, threshold={"fpr": math.exp(-min(max(value, 0.7), 20.0))})
        calibrated = _calibrate(replace(trained, config=plain))
        version = _with_score_by_regime(calibrated, trained)
    fitted = calibrated.fitted
    return with_incidents_on_held_out(
        version, trained.previous, fitted.rows, fitted.held_out, policy
    )


@dataclass(frozen=True, slots=True)
class _CalibratedVersion:
    """A version, its score with the held-out scores that calibrate it, and its generated past.

    `generated` (g, d), scaled, are the vectors with the scores `before` and `after` in `fitted`.
    """

    version: Version
    fitted: auto.FittedScore
    generated: Array


def _calibrate(trained: Trained) -> _CalibratedVersion:
    plan, past, previous = trained.plan, trained.past, trained.previous
    rng = np.random.default_rng([plan.seed, 3])
    network, config = trained.networks[0], trained.config
    least = _least_calibrating(trained)
    share_old = min(past.learned / (past.learned + len(trained.x)), 1.0 - least)
    generated = trained.x[:0]
    if previous:  # vectors in place of the old normals, that no training step has seen
        generated = like_old_normals(previous, config.score, GENERATED, rng)
    x, folds = _code_sample(trained, rng)
    latents = Mixture.fit(_sample_codes(network, x, rng), plan.seed)
    champion = _champion_under(previous, config, generated) if previous else None
    if config.score == "auto":
        fitted = auto.fit(trained, champion, generated, (share_old, least))
    else:
        fitted = _fit_score(trained, latents, (x, folds), champion, generated)
    calibration, worth, independent = _calibration(trained, champion, fitted, share_old, least)
    kept = _vectors_to_keep(trained, latents, generated)
    lineage = _lineage(trained, kept.nbytes)
    version = Version(
        config=config,
        scaler=trained.scaler,
        network=network,
        latents=latents,
        calibration=calibration,
        reference=reference_of(previous, trained.new, 1.0 - len(trained.new) / lineage.learned),
        kept=kept,
        lineage=lineage,
        memory=trained.memory,
        scoring=fitted.scoring,
    )
    x_new = trained.scaler.transform(trained.new)
    version = version.with_lineage(
        evidence=alarm_evidence(
            version, champion, x_new, fitted.held_out, (fitted.before, fitted.after)
        ),
        notes=(
            *notes.on_calibration(fitted.differs),
            *notes.on_dependent_rows(worth, len(fitted.rows)),
        ),
        independent=independent,
    )
    surveyed = survey(version, champion, trained.new, trained.scaler.inverse(generated))
    version = surveyed.recorded(version)
    return _CalibratedVersion(version, fitted, generated)


def _calibration(
    trained: Trained,
    champion: Version | None,
    fitted: auto.FittedScore,
    share_old: float,
    least: float,
) -> tuple[Calibration, int, int | None]:
    """Return the calibration by the champion's scores, the held-out ones, and the labelled rows'.

    `share_old` and `least` are the share of the champion's scores and the least share of the
    others. The second result says how many independent rows the held-out rows are worth, the third
    how many all calibration scores are worth; None if they are worth their number.
    """
    old, worth_old = np.empty(0), None
    if champion and trained.past.learned:
        old = narrowed(champion.calibration.scores, champion.lineage.independent)
        old = carried(old, fitted.before, fitted.after)
    if trained.previous and len(old):
        worth_old = trained.previous.lineage.independent
    worth = n = len(fitted.rows)
    if depend_on_earlier(trained.x, FOLDS):
        worth = independent_rows(fitted.rows, fitted.held_out)
    independent = worth if worth < n else worth_old
    if independent and len(old):  # rows repeated for a small regime alone do not count as fewer
        independent = together(worth_old or len(old), worth, share_old)
    calibration = mixed(old, repeated(fitted.held_out, least, len(old)), share_old)
    calibration = widened(calibration, independent)
    labelled = score_rows(fitted.score, trained.x[trained.labelled])
    calibration = labelled_rows.calibrated_with(labelled, calibration)
    fewer = independent is not None and independent < calibration.n
    return calibration, worth, independent if fewer else None


def _least_calibrating(trained: Trained) -> float:
    """Return the least share of new normals in the calibration; 0 if their number decides.

    By counts alone, fifty rows of a new regime after five thousand rows would be a hundredth of the
    calibration. All of them could alarm while the total rate is still as configured. Few rows of a
    new regime have an enlarged share of every batch (`mixing.least_new`), and here they get the
    same share of the calibration. At a configured rate of 1 %, about one in thirty of them may then
    alarm. After many regimes the share is smaller, so that the old regimes keep theirs: as if all
    regimes were equal, but at least LEAST_CALIBRATING.
    """
    plan, past, previous = trained.plan, trained.past, trained.previous
    if previous is None or not past.replays or plan.new_rows <= plan.w_new:
        return 0.0
    equal = 1.0 / (1 + len(previous.lineage.regimes))
    return plan.new_rows * min(1.0, max(LEAST_CALIBRATING, equal) / LEAST_NEW)


def _with_note_on_regimes(plain: _CalibratedVersion, trained: Trained) -> Version:
    """Return the version with a note on regimes whose held-out rows are unusual, if any."""
    version, fitted = plain.version, plain.fitted
    regimes = version.nearest_regime(trained.scaler.inverse(trained.x[fitted.rows]))
    p = version.calibration.p_values(representable(fitted.held_out))
    added = notes.on_unusual_regimes(regimes, p)
    return version.with_lineage(notes=(*version.lineage.notes, *added))


def _with_score_by_regime(plain: _CalibratedVersion, trained: Trained) -> Version:
    """Return the version with its score relative to the regime, calibrated within each regime."""
    version, previous, fitted = plain.version, trained.previous, plain.fitted
    held_out = trained.scaler.inverse(trained.x[fitted.rows])
    new = by_regime.tables_of(fitted.held_out, version.nearest_regime(held_out))
    old: by_regime.Tables = {}
    if previous and trained.past.learned:
        generated = trained.scaler.inverse(plain.generated)
        before, after = (either.nearest_regime(generated) for either in (previous, version))
        tables = _regime_tables(previous, version.config.score)
        if tables is None and previous.config.score == version.config.score:
            # all regimes have one table
            tables, before = {0: previous.calibration.scores}, np.zeros_like(before)
        old = by_regime.carried_tables(tables, before, after, fitted.before, fitted.after)
    numbers = [regime.number for regime in version.lineage.regimes]
    joined = by_regime.joined_tables(old, new, numbers)
    version = replace(
        version,
        config=trained.config,
        calibration=widened(by_regime.pooled_calibration(joined), version.lineage.independent),
        scoring={**version.scoring, **by_regime.to_tensors(joined)},
    )
    labelled = version.score_scaled(trained.x[trained.labelled])
    calibration = labelled_rows.calibrated_with(labelled, version.calibration)
    return replace(version, calibration=calibration)


def _regime_tables(previous: Version, plain: str) -> by_regime.Tables | None:
    """Return the calibration scores of each regime of a version; None if it has none."""
    tables = by_regime.from_tensors(previous.scoring)
    if tables is None or base_score(previous.config.score) != plain:
        return None
    numbers = [regime.number for regime in previous.lineage.regimes]
    return dict(zip(numbers, tables, strict=True))


def _champion_under(previous: Version, config: Config, generated: Array) -> Version:
    """Return the previous version with the score of `config`."""
    champion = previous.with_config(config)
    if previous.config.score == config.score:
        return champion
    if tables := _regime_tables(previous, config.score):
        scores = np.concatenate([*tables.values()])  # the same score, but relative to the regime
    else:
        # The gap between scores of real and generated vectors is unknown under the new score. For
        # one version the calibration therefore consists of generated vectors' scores alone.
        scores = champion.score_scaled(generated)
    champion = champion.with_lineage(independent=None)
    return replace(champion, calibration=Calibration(np.sort(scores)))


def _vectors_to_keep(trained: Trained, latents: Mixture, generated: Array) -> Array:
    """Return the real vectors that the strategy keeps, scaled (m, d)."""
    previous, choose = trained.previous, trained.past.keep
    new = trained.scaler.transform(trained.new)
    if choose is None:
        return new[:0]
    candidates = Candidates(
        old=previous.kept if previous else new[:0],
        new=new,
        generated=generated,
        learned=trained.past.learned,
        network=trained.networks[0],
        latents=latents,
        rng=np.random.default_rng([trained.plan.seed, 6]),
    )
    return choose(candidates)


def _fit_score(
    trained: Trained,
    latents: Mixture,
    coded: tuple[Array, NDArray[np.int64]],
    champion: Version | None,
    generated: Array,
) -> auto.FittedScore:
    """Prepare the config's score, and calibrate it on held-out vectors.

    `coded` are `x` and `folds` of `_held_out_scores`; the champion drew `generated` (g, d), scaled.
    """
    name, network = trained.config.score, trained.networks[0]
    scoring = score_arrays(name, network, latents, trained.plan.seed)
    score = score_named(name, network, latents, scoring)
    rows, held_out = _held_out_scores(trained, latents, *coded)
    serving = score_rows(score, trained.x[rows])
    scores = calibration_scores(held_out, serving, EqualRows.find(trained.x).at(rows))
    differs = disagreement(scores, serving)
    if differs is not None:
        scores = np.maximum(held_out, serving)
    before = champion.score_scaled(generated) if champion else np.empty(0)
    after = score_rows(score, generated)
    return auto.FittedScore(score, scoring, rows, scores, differs, before, after)


def _held_out_scores(
    trained: Trained, latents: Mixture, x: Array, folds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Float64]:
    """Score held-out vectors with networks that have not seen them: rows and scores, (m,).

    `latents` is the mixture of network 0, fitted to codes of x (n, d). `folds` (n,) says which
    network leaves out each row of x.
    """
    score, plan = trained.config.score, trained.plan
    rng = np.random.default_rng([plan.seed, 10])
    scored = []
    for m, network in enumerate(trained.networks):
        mixture = latents
        # Another network gets the mixture of its own codes of the vectors that it learned.
        if m and score not in NETWORK_ALONE:
            learned = x[folds != m]
            codes = _sample_codes(trained.networks[0], learned, rng)
            mixture = latents.moved(codes, _sample_codes(network, learned, rng))
        needs = score_arrays(score, network, mixture, plan.seed)
        rows = np.flatnonzero(plan.left_out(m))
        scored.append(
            (rows, score_rows(score_named(score, network, mixture, needs), trained.x[rows]))
        )
    rows_of_networks, scores = zip(*scored, strict=True)
    return np.concatenate(rows_of_networks), np.concatenate(scores)


def _code_sample(trained: Trained, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    """Return old and new vectors in the ratio of their weights, (m, d), and their folds, (m,).

    Generated vectors have fold 0: no network leaves them out.
    """
    plan, past = trained.plan, trained.past
    w_new = plan.w_new
    n_new = min(len(trained.x), int(MAX_CODES * w_new) or 1)
    rows = rng.permutation(len(trained.x))[:n_new]
    x, folds = trained.x[rows], plan.folds[rows]
    n_old = round(n_new * plan.w_prev / w_new)
    generator = past.generator or trained.previous
    if generator and past.learned and n_old:
        old = generator.draw(min(n_old, MAX_CODES), rng)
        x, folds = np.concatenate([old, x]), np.concatenate([np.zeros(len(old), np.int64), folds])
    return x, folds


def _sample_codes(network: Network, x: Array, rng: np.random.Generator) -> Array:
    """Return a code z ~ q(z|x) of each row of x (m, d), (m, k)."""
    return posterior_codes(*network.encode(x), rng)


def _lineage(trained: Trained, bytes_kept: int) -> Lineage:
    plan, past = trained.plan, trained.past
    kept = 0 if past.vectors is None else len(past.vectors)
    w_new = max(plan.w_new, plan.new_rows) if past.replays else plan.w_new
    if kept:
        w_new = min(1.0, len(trained.new) / len(trained.x))
    training = Training(
        steps=plan.steps,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        networks=plan.networks,
        loss=tuple(trained.curve),
    )
    return lineage_of(
        trained.previous,
        trained.config,
        training,
        weights=(float(1.0 - w_new), float(w_new)),
        counts=(past.learned or kept, len(trained.new)),
        seed=plan.seed,
        bytes_kept=bytes_kept,
    )
