"""The compared learners: this project's detector, and detectors of other libraries.

A learner has `learn(X)` and `score(X)`, where X is (n, d). `thresholds()` gives for each policy the
lowest score that alarms. `bytes_kept` is the size of the real vectors that it keeps.
"""

import numpy as np

from models import train

TARGET = 0.01  # the rate of false alarms that is asked of every policy


class Ours:
    """A detector of this project with a config."""

    def __init__(self, config):
        self.config, self.version, self.first = config, None, None

    def learn(self, X):
        """Learn the normals X of one task."""
        self.version = train(self.version, X, self.config)
        self.first = self.version.threshold if self.first is None else self.first

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.version.score(X)

    def thresholds(self):
        """Return the threshold of each policy at the same asked rate.

        `value` is the score that `fpr` chose after the first task; it never changes.
        """
        policies = {
            "fpr": {"fpr": TARGET},
            "pot": {"pot": TARGET},
            "quantile": {"quantile": 1 - TARGET},
            "value": {"value": self.first},
        }
        return {name: self.version.threshold_for(policy).value for name, policy in policies.items()}

    @property
    def bytes_kept(self):
        """Return how many bytes of real vectors are kept."""
        return self.version.lineage.bytes_kept

    @property
    def experiences(self):
        """Return how many tasks were learned."""
        return self.version.lineage.experiences


class Peer:
    """A detector of another library, fitted again to all vectors so far, or to the newest task.

    With `scaled`, rows are standardised first, as in a pipeline of scikit-learn.
    """

    def __init__(self, name, seed, joint=True, scaled=False):
        self.name, self.seed, self.joint, self.scaled, self.kept = name, seed, joint, scaled, []

    def learn(self, X):
        """Fit to the normals X, and if joint to all earlier ones too."""
        self.kept = [*self.kept, X] if self.joint else [X]
        X = np.concatenate(self.kept)
        self.center, self.scale = np.float32(0), np.float32(1)
        if self.scaled:
            self.center, self.scale = X.mean(axis=0), X.std(axis=0)
            self.scale[self.scale <= 1e-6 * np.abs(self.center)] = 1.0
        self.fitted = FITS[self.name]((X - self.center) / self.scale, self.seed)

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.fitted((X - self.center) / self.scale)

    def thresholds(self):
        """Return no threshold, because none of these detectors promises a rate."""
        return {}

    @property
    def bytes_kept(self):
        """Return how many bytes of real vectors are kept."""
        return sum(X.nbytes for X in self.kept)


def _knn(X, seed):
    from sklearn.neighbors import NearestNeighbors

    del seed
    fitted = NearestNeighbors(n_neighbors=5).fit(X)
    return lambda rows: fitted.kneighbors(rows)[0][:, -1]


def _forest(X, seed):
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(random_state=seed).fit(X)
    return lambda rows: -fitted.score_samples(rows)


def _ocsvm(X, seed):
    from sklearn.svm import OneClassSVM

    # its cost is quadratic in the rows
    few = np.random.default_rng(seed).permutation(len(X))[:5_000]
    fitted = OneClassSVM().fit(X[few])
    return lambda rows: -fitted.score_samples(rows)


def _pca(X, seed):
    from sklearn.decomposition import PCA

    fitted = PCA(0.9, svd_solver="full", random_state=seed).fit(X)
    return lambda rows: np.square(rows - fitted.inverse_transform(fitted.transform(rows))).sum(
        axis=1
    )


def _mahalanobis(X, seed):
    del seed
    covariance = np.atleast_2d(np.cov(X, rowvar=False))  # of one column it is a number
    mean, precision = X.mean(axis=0), np.linalg.pinv(covariance, hermitian=True)
    return lambda rows: np.einsum("ni,ij,nj->n", rows - mean, precision, rows - mean)


def _pyod_vae(X, seed):
    from pyod.models.vae import VAE

    fitted = VAE(random_state=seed, verbose=0).fit(X)
    return fitted.decision_function


FITS = {
    "5-NN": _knn,
    "IForest": _forest,
    "OCSVM": _ocsvm,
    "PCA": _pca,
    "Mahalanobis": _mahalanobis,
    "PyOD VAE": _pyod_vae,
}
