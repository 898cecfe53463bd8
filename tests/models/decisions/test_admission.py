import numpy as np
import pytest
from scipy.stats import binom

from models import Config, Model, train
from models.decisions.admission import admit, thin
from models.parts.statistics import binomial_at_most

RNG = np.random.default_rng(5)


def normals_around(centre, n):
    """Return n normals (n, 6) of the regime at `centre`."""
    return RNG.normal(centre, size=(n, 6)).astype(np.float32)


def scattered(n, d=6):
    """Return n rows (n, d) that lie far from the regime at 0 and from each other."""
    directions = RNG.normal(size=(n, d))
    sizes = RNG.uniform(12, 30, size=(n, 1))
    return np.float32(directions / np.linalg.norm(directions, axis=1, keepdims=True) * sizes)


@pytest.fixture(scope="module", params=["vae", "mahalanobis"])
def version(request):
    """Train a champion on the regime at 0."""
    return train(None, normals_around(0.0, 1000), Config(score="elbo", kind=request.param))


def admitted(version, X, near=None):
    """Judge X by `version` at a false-alarm rate of 1 %."""
    return admit(version, X, version.threshold_for({"fpr": 0.01}), near)


def test_rows_that_the_champion_knows_pass(version):
    """Of a batch that the champion knows, at most one normal in a hundred is held back."""
    admission = admitted(version, normals_around(0.0, 2000))
    assert admission.held.mean() <= 0.01
    assert admission.known > 0.97
    assert abs(admission.known + admission.novel + admission.suspicious - 1) < 1e-9
    assert admission.well_known


def test_contamination_is_held_back(version):
    """If a tenth is anomalous, nearly all anomalies wait, and nearly no normals beside them."""
    admission = admitted(version, np.concatenate([normals_around(0.0, 900), scattered(100)]))
    assert admission.held[900:].mean() >= 0.95
    assert admission.held[:900].mean() <= 0.01
    assert not admission.well_known


def test_a_clump_that_is_a_tenth_of_its_batch_is_no_regime(version):
    """Similar anomalies that are a tenth of their batch are held back: faults repeat, too."""
    admission = admitted(
        version, np.concatenate([normals_around(0.0, 900), normals_around(8.0, 100)])
    )
    assert admission.held[900:].all()


@pytest.mark.parametrize("others", [0, 300])
def test_a_new_regime_passes_whole(version, others):
    """A new regime passes alone, and beside as many rows of an old one."""
    admission = admitted(
        version, np.concatenate([normals_around(8.0, 300), normals_around(0.0, others)])
    )
    assert not admission.held[:300].any()
    assert admission.novel > 0.4
    assert not admission.well_known


def test_a_batch_full_of_scattered_anomalies_does_not_pass(version):
    """A batch of anomalies that lie far out in different directions does not pass."""
    assert admitted(version, scattered(300)).held.all()


def test_a_new_regime_can_enter_row_by_row(version):
    """Rows of a new regime wait until enough rows before them are similar; then they pass."""
    X = normals_around(8.0, 120)
    first = admitted(version, X[:1], normals_around(0.0, 200))
    assert first.held.all()
    near = np.concatenate([normals_around(0.0, 100), X[:119]])
    assert not admitted(version, X[119:], near).held.any()


def test_rows_one_by_one_are_seldom_held_back(version):
    """Of rows that are sent one by one, 99 of 100 normals pass, too."""
    X = normals_around(0.0, 1000)
    held_back = sum(admitted(version, X[i : i + 1], X[:200]).held[0] for i in range(1000))
    assert held_back <= 15


def test_rows_with_gaps_are_judged_by_the_values_that_they_have():
    """With missing values, too, a new regime passes and scattered rows do not."""
    config = Config(missing="impute", model=Model(epochs=20))
    version = train(None, normals_around(0.0, 600), config)
    for X, suspicious in ((normals_around(8.0, 300), False), (scattered(300), True)):
        X[RNG.random(X.shape) < 0.1] = np.nan
        assert bool(admitted(version, X).held.mean() > 0.9) is suspicious


def test_a_thinned_batch_keeps_its_distribution():
    """Thinning keeps every fourth row by p-value, in the order of the batch."""
    p = RNG.random(1000)
    kept = thin(p)
    assert len(kept) == 250
    assert (np.diff(kept) > 0).all()
    before, after = (np.quantile(values, [0.1, 0.5, 0.9]) for values in (p, p[kept]))
    assert np.abs(after - before).max() < 0.01


@pytest.mark.parametrize(
    ("k", "n", "probability"),
    [(0, 10, 0.01), (2, 10, 0.01), (5, 1000, 0.01), (900, 1000, 0.01), (12000, 10**6, 0.01)],
)
def test_the_binomial_distribution_equals_that_of_scipy(k, n, probability):
    """The distribution equals that of scipy, which an API process does not load."""
    expected = binom.cdf(k - 1, n, probability)
    assert np.isclose(binomial_at_most(k - 1, n)(probability), expected, rtol=1e-6)
