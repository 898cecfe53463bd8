"""The detector with the interfaces of scikit-learn and PyOD."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from models.config import Config
from models.sklearn import AnamnesisDetector

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
OUTLIER = np.full((1, 3), 9.0)


_SHARE_OF_NEW_ROWS = "`contamination` is the share of new normals, not of the learned rows"
EXCEPTIONS = {
    "check_methods_subset_invariance": "float32 matrix products round differently by batch",
    "check_methods_sample_order_invariance": "float32 matrix products round differently by row",
    "check_outliers_train": _SHARE_OF_NEW_ROWS,
    "check_outliers_fit_predict": _SHARE_OF_NEW_ROWS,
}


@parametrize_with_checks(
    [AnamnesisDetector(kind="mahalanobis", contamination=0.1)],
    expected_failed_checks=lambda _: EXCEPTIONS,
)
def test_the_estimator_passes_the_checks_of_scikit_learn(estimator, check):
    """Every check of scikit-learn passes except those named above."""
    check(estimator)


def test_rows_of_an_earlier_fit_stay_normal_after_partial_fit():
    """`partial_fit` learns new rows; the rows that `fit` learned stay normal."""
    detector = AnamnesisDetector(epochs=20).fit(X)
    assert detector.predict(OUTLIER).tolist() == [-1]
    assert (detector.predict(X) == 1).mean() > 0.9
    first = detector.version_
    detector.partial_fit(X + 6)
    assert detector.version_.lineage.parent == first.sha256
    assert (detector.predict(X) == 1).mean() > 0.8
    assert (detector.predict(X + 6) == 1).mean() > 0.8


def test_attributes_with_pyod_names_agree_with_those_of_scikit_learn():
    """In PyOD's attributes, higher is more anomalous and 1 is an outlier."""
    detector = AnamnesisDetector(kind="mahalanobis").fit(X)
    assert np.array_equal(detector.labels_ == 1, detector.predict(X) == -1)
    assert detector.decision_scores_ == pytest.approx(-detector.score_samples(X))
    assert detector.threshold_ == -detector.offset_


def test_the_score_is_that_of_config_and_explanations_name_the_columns_of_a_table():
    """The default score is that of `Config()`; explanations name the columns of a table."""
    pa = pytest.importorskip("pyarrow")
    detector = AnamnesisDetector(kind="mahalanobis", random_state=np.random.RandomState(3))
    version = detector.fit(pa.table({"flow": X[:, 0], "speed": X[:, 1]})).version_
    assert version.config.score == Config().score
    assert version.explain(OUTLIER[:, :2], 1)[0][0].feature in {"flow", "speed"}
    unnamed = detector.fit(pa.table({"flow ": X[:, 0], "speed": X[:, 1]})).version_
    assert unnamed.config.features is None


def test_an_estimator_that_is_not_fitted_raises():
    """An estimator that is not fitted raises NotFittedError."""
    with pytest.raises(NotFittedError):
        AnamnesisDetector().predict(X)


def test_the_repr_of_a_version_is_one_line():
    """A version's repr is one line without its weights."""
    version = AnamnesisDetector(kind="mahalanobis").fit(X).version_
    assert repr(version).startswith("Version(kind=mahalanobis, columns=3")
    assert "\n" not in repr(version)
    assert len(repr(version)) < 200
    assert version._repr_html_().startswith("<table><tr><th>kind</th>")
