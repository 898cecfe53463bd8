"""A scikit-learn outlier detector that also has PyOD's attribute names."""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from models.columns import check_name
from models.config import MIN_VECTORS, Config
from models.errors import ConfigError
from models.model_config import Model
from models.version.version import Version


class AnamnesisDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns what is normal, and goes on learning by `partial_fit` without forgetting.

    `anomaly_score` is `score` of `models.Config`: scikit-learn reserves the name `score` for a
    method. `contamination` is the share of normals that may be judged outliers. With
    `missing="impute"`, NaN marks a missing value. With `epochs=None`, the number of epochs follows
    from the data. The other parameters are those of `models.Config`. After `fit`, `version_` is the
    latest version. A training needs 32 rows: fewer rows are repeated up to that number.

    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> AnamnesisDetector(epochs=5).fit(X).predict([[0.0, 0.0], [9.0, 9.0]])
    array([ 1, -1])
    """

    version_: Version
    n_features_in_: int

    def __init__(  # noqa: PLR0913, PLR0917 - an estimator's parameters are its constructor's
        self,
        contamination: float = 0.01,
        kind: str = "vae",
        strategy: str = "replay",
        anomaly_score: str = "auto",
        missing: str = "refuse",
        epochs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.contamination = contamination
        self.kind = kind
        self.strategy = strategy
        self.anomaly_score = anomaly_score
        self.missing = missing
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the normals X (n, d) from scratch."""
        del y
        return self._learn(None, self._checked(X, reset=True))

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn the normals X (n, d) on top of everything learned before."""
        del y
        first = not hasattr(self, "version_")
        return self._learn(None if first else self.version_, self._checked(X, reset=first))

    def _learn(self, previous: Version | None, X: NDArray[np.float32]) -> Self:
        from models.training.train import train  # imported here: torch is needed for training alone

        model: Literal["auto"] | Model = "auto"
        if self.epochs is not None:
            model = Model(epochs=self.epochs)
        config = Config(
            kind=self.kind,
            strategy=self.strategy,
            score=self.anomaly_score,
            missing=self.missing,
            model=model,
            threshold={"fpr": self.contamination},
            seed=self._seed(),
            features=self._names(),
        )
        enough = X if len(X) >= MIN_VECTORS else np.resize(X, (MIN_VECTORS, X.shape[1]))
        self.version_ = train(previous, enough, config)
        self.decision_scores_ = self.version_.score(X)  # as in PyOD, higher is more anomalous
        return self

    def _seed(self) -> int:
        given = self.random_state
        return given.randint(2**31) if isinstance(given, np.random.RandomState) else int(given or 0)

    def _names(self) -> tuple[str, ...] | None:
        """Return the names of a DataFrame's columns, so that explanations have them."""
        names = tuple(getattr(self, "feature_names_in_", ()))
        try:
            for name in names:
                check_name("features", name)
        except ConfigError:
            return None
        return names if len(set(names)) == len(names) > 0 else None

    @property
    def offset_(self) -> float:
        """The value of `score_samples` below which a row is an outlier."""
        return -self.threshold_

    @property
    def threshold_(self) -> float:
        """PyOD's name for the score in nats from which a row is an outlier."""
        return self.version_.threshold

    @property
    def labels_(self) -> NDArray[np.int64]:
        """PyOD's name for the labels of the rows learned last, (n,): 1 for an outlier, else 0."""
        return (self.decision_scores_ >= self.threshold_).astype(np.int64)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return the negative anomaly score of each row, (n,): higher is more normal."""
        check_is_fitted(self, "version_")
        return -self.version_.score(self._checked(X, reset=False))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return `score_samples` minus `offset_`, (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for outliers and 1 for the others, (n,)."""
        check_is_fitted(self, "version_")
        outliers = self.version_.is_anomaly(self._checked(X, reset=False))
        return np.where(outliers, -1, 1).astype(np.int64)

    def _checked(self, X: Any, *, reset: bool) -> NDArray[np.float32]:
        finite = "allow-nan" if self.missing == "impute" else True
        return validate_data(self, X, reset=reset, dtype=np.float32, ensure_all_finite=finite)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "impute"
        return tags
