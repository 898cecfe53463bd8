"""The evidence that the gate gets, measured on versions that were trained for it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from models import Config, Model, Version, train
from models.decisions.evidence import gather
from models.decisions.gate import gate
from models.parts.labels import Labels
from models.parts.statistics import auroc

CONFIG = Config(model=Model(epochs=300, hidden=(32,), latent=2))


def _normals(n: int, seed: int) -> np.ndarray:
    """Return n vectors of four dependent features."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 1)) * [1.0, -1.0, 0.5, 2.0] + 0.3 * rng.normal(size=(n, 4))
    return rows.astype(np.float32)


def _similar_anomalies(n: int, seed: int) -> np.ndarray:
    """Return n anomalies that are similar to each other: normals moved by the same vector."""
    return _normals(n, seed) + np.array([4.0, 4.0, 0.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def champion() -> Version:
    """Return a version that knows one regime."""
    return train(None, _normals(600, 0), CONFIG)


def _reasons(candidate: Version, champion: Version, **more: object) -> list[str]:
    return gate(gather(candidate, champion, **more)).reasons


@pytest.fixture(scope="module")
def labels() -> Labels:
    """Return thirty labelled anomalies and as many labelled normals."""
    vectors = np.concatenate([_similar_anomalies(30, 1), _normals(30, 2)])
    return Labels(vectors, np.arange(60) < 30)


@pytest.mark.thorough
def test_a_candidate_that_learned_more_of_the_same_passes(champion, labels) -> None:
    """A candidate that learned more of the same regime finds and alarms as the champion does."""
    candidate = train(champion, _normals(600, 3), CONFIG)
    assert _reasons(candidate, champion, labels=labels) == []


@pytest.mark.thorough
def test_a_candidate_that_learned_noise_is_rejected(champion) -> None:
    """Noise that was learned shows in the synthetic anomalies, and not in the rates of alarms."""
    noise = np.random.default_rng(4).uniform(-6, 6, (600, 4)).astype(np.float32)
    candidate = train(champion, noise, CONFIG)
    assert gate(candidate.lineage.evidence).passed
    assert "synthetic anomalies" in _reasons(candidate, champion)[0]


def test_a_candidate_that_forgot_is_rejected(champion) -> None:
    """A candidate that learned a second regime without replay no longer finds the anomalies."""
    other = (_normals(600, 5) @ np.diag([1.0, 1.0, 1.0, -1.0]) + 4.0).astype(np.float32)
    candidate = train(champion, other, CONFIG, {"w_prev": 0.0, "w_new": 1.0})
    assert "it forgot some of the old normals" in " ".join(_reasons(candidate, champion))
    assert _reasons(train(champion, other, CONFIG), champion) == []


@pytest.mark.thorough
def test_only_labels_show_that_similar_anomalies_were_learned(champion, labels) -> None:
    """Only labels show that a third of the experience were similar anomalies."""
    rows = np.concatenate([_normals(420, 6), _similar_anomalies(180, 7)])
    candidate = train(champion, rows, CONFIG)
    assert _reasons(candidate, champion) == []
    (reason,) = _reasons(candidate, champion, labels=labels)
    assert reason.startswith("labelled anomalies: champion or anchor find 30")


@pytest.mark.thorough
def test_small_steps_add_up_beside_the_anchor(champion, labels) -> None:
    """Anomalies that the champion no longer finds still count if the anchor found them."""
    lost = train(champion, np.concatenate([_normals(420, 6), _similar_anomalies(180, 7)]), CONFIG)
    candidate = train(lost, _normals(200, 8), CONFIG)
    assert _reasons(candidate, lost, labels=labels) == []
    assert _reasons(candidate, lost, labels=labels, anchor=champion) != []


def test_evidence_is_finite_whatever_people_labelled(champion) -> None:
    """With only normals, only anomalies or no labels, the evidence has finite numbers."""
    for n in (0, 3):
        labels = Labels(
            np.concatenate([_normals(3 - n, 1), _similar_anomalies(n, 2)]), np.full(3, n > 0)
        )
        evidence = gather(champion, champion, labels).labelled
        assert (evidence.anomalies, evidence.normals) == (n, 3 - n)
        assert evidence.kept == evidence.known <= n
    gap = np.full((1, 4), np.nan, np.float32)
    for none in (np.empty((0, 4), np.float32), gap):
        labels = Labels(none, np.ones(len(none), bool))
        assert gather(champion, champion, labels).labelled is None


@pytest.mark.thorough
def test_another_score_is_compared_by_rank_and_by_its_own_p_values(champion) -> None:
    """A candidate with another score is compared by rank and by its own p-values."""
    config = replace(CONFIG, score="reconstruction")
    candidate = train(champion, _normals(600, 3), config)
    evidence = gather(candidate, champion).synthetic
    assert abs(evidence.candidate.found - evidence.champion.found) < 0.2


def test_auroc_of_equals_is_a_half() -> None:
    """The AUROC of equal scores is a half; of scores that are always above it is 1."""
    scores = np.arange(5.0)
    assert auroc(scores, scores) == 0.5
    assert auroc(scores, scores + 10) == 1.0


def _updated(champion: Version, anchor: Version, new: np.ndarray) -> tuple[Version, list[str]]:
    candidate = train(champion, new, champion.config)
    other_anchor = None if anchor is champion else anchor
    return candidate, _reasons(candidate, champion, anchor=other_anchor, new=new)


def test_a_slow_walk_is_stopped_before_the_anomaly_is_normal() -> None:
    """A slow walk is stopped: each step is hardly new, but together they are new to the anchor."""
    first = champion = train(None, _normals(800, 0), Config(kind="mahalanobis"))
    away = np.array([3.0, 3.0, 0.0, 0.0], np.float32)
    for step in range(1, 31):
        new = _normals(300, 100 + step) + np.float32(step / 30) * away
        new = new[champion.p_values(new) > 0.001]
        candidate, reasons = _updated(champion, first, new)
        if reasons:
            break
        champion = candidate
    assert step > 1
    assert any("small steps" in reason for reason in reasons)
    assert champion.is_anomaly(_normals(1_000, 1)).mean() < 0.03
    assert champion.is_anomaly(_normals(1_000, 2) + away).mean() > 0.9


def test_a_regime_that_comes_again_is_no_walk() -> None:
    """A regime that was new when it came, and comes again, does not count as a slow walk."""
    first = champion = train(None, _normals(800, 0), Config(kind="mahalanobis"))
    other = np.array([30.0, 0.0, 0.0, 30.0], np.float32)
    for seed, shift in enumerate((0.0, 1.0, 1.0, 0.0, 1.0), 10):
        new = _normals(300, seed) + np.float32(shift) * other
        champion, reasons = _updated(champion, first, new)
        assert reasons == []
    novel = [regime.novel or 0.0 for regime in champion.lineage.regimes]
    assert min(novel) <= 0.5 < max(novel)
    assert Version.from_bytes(champion.to_bytes()).lineage == champion.lineage


def test_regimes_that_resemble_known_ones_are_no_walk() -> None:
    """Digits that resemble learned ones, so that few of their rows alarm, are no slow walk."""
    X, digits = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    first = champion = train(None, X[digits == 1], Config(kind="mahalanobis"))
    alarms = []
    for digit in range(2, 10):
        new = X[digits == digit]
        alarms.append(champion.is_anomaly(new).mean())
        champion, reasons = _updated(champion, first, new)
        assert not any("small steps" in reason for reason in reasons)
    assert min(alarms) < 0.05


def test_drawn_normals_score_like_the_learned_ones() -> None:
    """The default score seldom alarms on normals that are drawn like rows of flags and counts.

    So it ranks synthetic anomalies above them.
    """
    rng = np.random.default_rng(0)
    flags = rng.random((300, 6)) < 0.3
    plane = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4))
    plane += 0.1 * rng.normal(size=plane.shape)
    X = np.concatenate([flags, plane, rng.poisson(2, size=(300, 3))], axis=1).astype(np.float32)
    version = train(None, X, Config(model=Model(epochs=20, hidden=(32,), latent=2)))
    evidence = gather(version, version, anchor=version)
    assert evidence.anchor.old.anchor < 0.05
    assert evidence.synthetic.champion.auroc > 0.85
