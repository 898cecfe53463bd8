"""A tree of features: which values occur together, remembered without rows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from models.arrays import Array
from models.config import Config, Model
from models.errors import ArtifactError
from models.parts.carried_views import CarriedViews
from models.parts.feature_tree import FeatureTree
from models.parts.statistics import auroc
from models.parts.views import Views
from models.scores.auto import ALWAYS
from models.training.train import train
from models.version.version import Version

SMALL = Config(model=Model(latent=3, hidden=(16,), epochs=3))


def _codes(n: int, seed: int, first: int = 0) -> Array:
    """Return rows (n, 4): a code, one that it determines, one that is unrelated, and noise."""
    rng = np.random.default_rng(seed)
    code = rng.integers(first, first + 10, n)
    return np.column_stack(
        [code, (7 * code) % 20, rng.integers(10, size=n), rng.normal(size=n)]
    ).astype(np.float32)


def _mismatched(n: int, seed: int) -> Array:
    """Return rows like `_codes`, in each of which the second code belongs to another first code."""
    rows = _codes(n, seed)
    rows[:, 1] = 7 * ((rows[:, 0] + 1 + np.arange(n) % 9) % 10) % 20
    return rows


def _tree_of(views: Views) -> FeatureTree:
    assert views.tree
    return views.tree


def test_codes_that_never_occur_together_are_improbable() -> None:
    """The tree joins the two codes that belong together, and knows which pairs occur."""
    views = Views.fit(_codes(800, 0), 0)
    tree = _tree_of(views)
    assert tree.parents[1] == 0
    assert tree.parents[2] == 2
    assert auroc(views.misfits(_codes(300, 1))[5], views.misfits(_mismatched(300, 2))[5]) > 0.99
    back = FeatureTree.from_tensors("t.", tree.to_tensors("t."))
    pieces = views.marginals.pieces(_codes(50, 3))
    assert back
    np.testing.assert_array_equal(back(pieces), tree(pieces))
    np.testing.assert_array_equal([tree(row) for row in pieces], tree(pieces))


def test_drawn_rows_have_the_pairs_that_occur() -> None:
    """Rows drawn from the tree have the values and the pairs of values that were learned."""
    views = Views.fit(_codes(800, 0), 0)
    pieces = _tree_of(views).sample(2000, np.random.default_rng(0))
    drawn = views.marginals.at_pieces(pieces)
    assert set(np.unique(drawn[:, 0])) <= set(range(10))
    assert (drawn[:, 1] == 7 * drawn[:, 0] % 20).mean() > 0.9
    np.testing.assert_allclose(np.bincount(drawn[:, 0].astype(int)) / 2000, 0.1, atol=0.04)


def test_drawn_values_lie_on_the_pieces_that_were_drawn() -> None:
    """Rounding does not move a drawn value of a continuous feature to the piece before."""
    x = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    views = Views.fit(x, 0)
    pieces = _tree_of(views).sample(500, np.random.default_rng(1))
    drawn = views.marginals.pieces(views.marginals.at_pieces(pieces))
    first = pieces % (views.marginals.values.shape[1] + 1) == 0  # below the first knot: at it
    np.testing.assert_array_equal(drawn[~first], pieces[~first])


def test_old_pairs_are_remembered_without_rows() -> None:
    """After new codes the tree still knows the old pairs, and the fold's tree does too."""
    old, new = Views.fit(_codes(800, 0), 0), _codes(800, 1, first=10)
    both = CarriedViews.fit(old, old.sample(800, np.random.default_rng(1)), new, 0)
    for views in (both.views, both.refitted(new[:600])):
        for normals in (_codes(300, 2), _codes(300, 3, first=10)):
            usual, odd = views.misfits(normals)[5], views.misfits(_mismatched(300, 4))[5]
            assert auroc(usual, odd) > 0.95


def test_the_default_score_finds_strange_pairs_after_a_second_experience() -> None:
    """A version that was saved, read and trained again finds pairs of codes that never occur."""
    version = train(None, _codes(800, 0), SMALL)
    version = Version.from_bytes(version.to_bytes())
    version = train(version, _codes(800, 1, first=10), SMALL)
    version = Version.from_bytes(version.to_bytes())
    odd, fresh = _mismatched(300, 4), _codes(300, 5)
    assert auroc(version.score(fresh), version.score(odd)) > 0.9
    alone = [version.judge(row[None]).scores[0] for row in odd[:20]]
    np.testing.assert_allclose(alone, version.score(odd[:20]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normals_with_one_related_pair_alarm_as_often_as_asked(seed: int) -> None:
    """A tree of one pair has few levels; the trees that calibrate it have the same levels."""

    def rows(n: int, stream: int) -> Array:
        x = np.random.default_rng([seed, stream]).normal(size=(n, 6))
        x[:, 1] = x[:, 0] + 0.5 * x[:, 1]
        return x.astype(np.float32)

    version = train(None, rows(1000, 0), SMALL)
    version = Version.from_bytes(version.to_bytes())
    assert version.is_anomaly(rows(4000, 1)).mean() < 0.03


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_tree_of_few_rows_has_few_bins(seed: int) -> None:
    """With 60 rows, bins of single rows would have other probabilities in every fold."""
    rng = np.random.default_rng(100 + seed)
    x = rng.normal(size=(2060, 6)).astype(np.float32)
    x[:, 1] = x[:, 0] + 0.3 * x[:, 1]
    version = train(None, x[:60], replace(SMALL, seed=seed))
    assert version.is_anomaly(x[60:]).mean() < 0.05


def test_only_pairs_with_a_feature_of_few_values_are_misfits() -> None:
    """A measure beside the wrong code is a misfit; continuous features have no part in it."""
    rng = np.random.default_rng(0)
    code, noise = rng.integers(4, size=2000), rng.normal(size=(2000, 3))
    noise[:, 1] = noise[:, 0] + 0.1 * noise[:, 1]
    x = np.column_stack([code, 3.0 * code + noise[:, 2], noise[:, :2]]).astype(np.float32)
    views = Views.fit(x, 0)
    pairs = views.pairs
    assert pairs
    assert not pairs.nats[:, 2:].any()
    wrong = x[:200].copy()
    wrong[:, 1] = 3.0 * ((code[:200] + 2) % 4)
    assert auroc(views.misfits(x)[6], views.misfits(wrong)[6]) > 0.99
    shares = views.explain(wrong)[2][0]
    np.testing.assert_allclose(shares.sum(axis=1), views.misfits(wrong)[6])
    assert (shares[:, :2].sum(axis=1) > 0.99 * shares.sum(axis=1)).all()
    assert Views.fit(noise.astype(np.float32), 0).pairs is None


def test_folds_have_the_parts_of_the_version() -> None:
    """A feature that has few values in all rows, but not in those of a fold, has them in both."""
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    x[:, 0] = np.arange(60) // 2
    version = train(None, x, SMALL)
    assert "views.pairs.nats" in version.scoring
    assert len(version.scoring["auto.tables"]) == ALWAYS + 2


@pytest.mark.parametrize("tree", ["tree", "pairs"])
def test_an_artifact_whose_parents_form_a_circle_is_refused(tree: str) -> None:
    """Parents that form a circle would never end a draw, so such an artifact is refused."""
    version = train(None, _codes(100, 0), SMALL)
    version.scoring[f"views.{tree}.parents"][:2] = 1, 0
    with pytest.raises(ArtifactError, match="circle"):
        Version.from_bytes(version.to_bytes())


@pytest.mark.parametrize("tree", ["tree", "pairs"])
def test_an_artifact_with_a_bin_without_pieces_is_refused(tree: str) -> None:
    """A bin without pieces could be drawn, but no value lies in it."""
    version = train(None, _codes(100, 0), SMALL)
    bins = version.scoring[f"views.{tree}.bins"]
    bins[bins == 0] = 1
    with pytest.raises(ArtifactError, match="bins leave out a bin"):
        Version.from_bytes(version.to_bytes())


@pytest.mark.parametrize(("missing", "parts"), [(("tree", "pairs"), ALWAYS), (("pairs",), 7)])
def test_a_version_of_an_earlier_release_gets_the_trees(
    missing: tuple[str, ...], parts: int
) -> None:
    """An artifact with fewer trees is read and scores by fewer parts; its next version has both."""
    version = train(None, _codes(100, 0), SMALL)
    assert len(version.scoring["auto.tables"]) == ALWAYS + 2
    scoring = {
        name: array for name, array in version.scoring.items() if name.split(".")[1] not in missing
    }
    tables = scoring["auto.tables"][:parts]
    earlier = replace(version, scoring={**scoring, "auto.tables": tables})
    back = Version.from_bytes(earlier.to_bytes())
    odd = _mismatched(20, 1)
    np.testing.assert_array_equal(back.score(odd), earlier.score(odd))
    alone = [back.judge(row[None]).scores[0] for row in odd]
    np.testing.assert_allclose(alone, back.score(odd), rtol=1e-5, atol=1e-5)
    assert len(train(back, _codes(100, 2), SMALL).scoring["auto.tables"]) == ALWAYS + 2


def _pairs(x: Array) -> Counter[tuple[float, float]]:
    return Counter((first, second) for first, second in x[:, :2].tolist())


def test_draws_to_learn_from_have_the_pairs_that_occurred_and_no_others() -> None:
    """Each pair is drawn as often as it occurred, give or take one row, also a rare pair."""
    x = _codes(400, 0)
    x[:3, 1] = [1, 2, 3]  # three pairs that occur once
    views = Views.fit(x, 0)
    drawn = views.sample_values(400, np.random.default_rng(0), unseen=False)
    occurred, redrawn = _pairs(x), _pairs(drawn)
    assert occurred.keys() == redrawn.keys()
    assert max(abs(occurred[pair] - redrawn[pair]) for pair in occurred) <= 1
    new_rows = views.sample_values(4_000, np.random.default_rng(0), unseen=True)
    assert not occurred.keys() >= _pairs(new_rows).keys()


def test_values_between_two_learned_ones_are_not_drawn() -> None:
    """A quantile may lie between two values that occur; a draw of it would be a new value."""
    x = np.random.default_rng(0).choice([0.0, 1.0, 7.0, 30.0, 31.0], size=(333, 5))
    views = Views.fit(x.astype(np.float32), 0)
    for unseen in (False, True):
        drawn = views.sample_values(3_000, np.random.default_rng(1), unseen)
        assert set(np.unique(drawn)) == set(np.unique(x))
    later = CarriedViews.fit(views, views.sample(300, np.random.default_rng(2)), drawn[:100], 0)
    for each in (views, later.views):
        assert set(np.unique(each.sample(3_000, np.random.default_rng(1)))) == set(np.unique(x))


def test_pairs_are_usual_after_five_other_experiences() -> None:
    """Each update learns draws of the one before; the pairs and their calibration are kept."""
    version = None
    for i, first in enumerate([0, 10, 20, 30, 10, 20]):
        version = train(version, _codes(200, i, first), SMALL)
        version = Version.from_bytes(version.to_bytes())
    assert version
    views = Views.from_tensors(version.scoring)
    assert views
    fresh, odd = (version.scaler.transform(rows(500, 9)) for rows in (_codes, _mismatched))
    usual = views.misfits(fresh)[5]
    assert auroc(usual, views.misfits(odd)[5]) > 0.95
    above = usual > np.quantile(version.scoring["auto.tables"][ALWAYS], 0.9)
    assert 0.01 < above.mean() < 0.3


def test_versions_of_earlier_releases_draw_as_before() -> None:
    """Such a version does not know the rows on each piece, and can be trained on."""
    version = train(None, _codes(300, 0), SMALL)
    del version.scoring["views.tree.on_pieces"]
    version = Version.from_bytes(version.to_bytes())
    later = train(version, _codes(300, 1), SMALL)
    assert "views.tree.on_pieces" in Version.from_bytes(later.to_bytes()).scoring


def test_forty_more_rows_do_not_hide_that_a_feature_has_few_values() -> None:
    """Forty rows of forty codes hardly repeat a code; the rows before show that codes recur."""
    rng = np.random.default_rng(0)
    second = rng.permutation(40)

    def rows(n: int) -> Array:
        first = rng.integers(40, size=n)
        columns = [first, second[(first + rng.integers(3, size=n)) % 40], rng.normal(size=n)]
        return np.stack(columns, axis=1).astype(np.float32)

    first = train(None, rows(2_000), SMALL)
    version = train(first, rows(40), SMALL)
    views = Views.from_tensors(version.scoring)
    assert views
    fresh = rows(1_000)
    odd = fresh.copy()
    odd[:, 1] = rng.permutation(odd[:, 1])
    in_pairs = [views.misfits(version.scaler.transform(each))[6] for each in (fresh, odd)]
    assert auroc(*in_pairs) > 0.85
    assert version.is_anomaly(fresh).mean() < 0.03


def test_small_updates_keep_the_rate_of_false_alarms() -> None:
    """Drawn rows have pairs that never occur; their scores do not move the threshold."""
    rng = np.random.default_rng(2)
    second = rng.permutation(40)

    def rows(n: int) -> Array:
        code = rng.integers(40, size=n)
        columns = [code, second[(code + rng.integers(3, size=n)) % 40], rng.integers(6, size=n)]
        return np.column_stack([*columns, rng.normal(size=n)]).astype(np.float32)

    version, fresh = train(None, rows(2_000), SMALL), rows(2_000)
    mixed = fresh.copy()
    mixed[:, 1] = rng.permutation(mixed[:, 1])
    for _ in range(2):
        version = train(version, rows(40), SMALL)
        assert 0.003 < version.is_anomaly(fresh).mean() < 0.025
        assert version.is_anomaly(mixed).mean() > 0.7
