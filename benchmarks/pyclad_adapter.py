"""Detectors of this project in pyCLAD, and pyCLAD's strategies as learners of the benchmarks.

Needs pyCLAD, which the extra `peers` installs.
"""

import random

import numpy as np
from pyclad.callbacks.evaluation.concept_metric_evaluation import ConceptMetricCallback
from pyclad.data.concept import Concept
from pyclad.data.datasets.concepts_dataset import ConceptsDataset
from pyclad.metrics.base.roc_auc import RocAuc
from pyclad.metrics.continual.average_continual import ContinualAverage
from pyclad.metrics.continual.backward_transfer import BackwardTransfer
from pyclad.metrics.continual.forward_transfer import ForwardTransfer
from pyclad.models.adapters import pyod_adapters as models
from pyclad.scenarios.concept_incremental import ConceptIncrementalScenario
from pyclad.strategies.baselines.cumulative import CumulativeStrategy
from pyclad.strategies.baselines.naive import NaiveStrategy
from pyclad.strategies.replay.buffers.adaptive_balanced import AdaptiveBalancedReplayBuffer
from pyclad.strategies.replay.replay import ReplayEnhancedStrategy, ReplayOnlyStrategy
from pyclad.strategies.replay.selection.random import RandomSelection
from pyclad.strategies.strategy import (
    ConceptAgnosticStrategy,
    ConceptAwareStrategy,
    ConceptIncrementalStrategy,
)

from benchmarks.learners import Ours
from models import Config

BUFFER = 600  # the rows that pyCLAD's replay keeps: a fifth of the rows of the five concepts
_MODELS = {
    "IF": models.IsolationForestAdapter,
    "LOF": models.LocalOutlierFactorAdapter,
    "OCSVM": models.OneClassSVMAdapter,
}


class Anamnesis(ConceptIncrementalStrategy, ConceptAwareStrategy, ConceptAgnosticStrategy):
    """A detector of this project as a strategy of pyCLAD; it needs no names of concepts."""

    def __init__(self, config=None):
        self._config = config or Config(score="elbo")
        self._learner = Ours(self._config)

    def learn(self, data, **_concept):
        """Learn the normals `data` (n, d) as one experience."""
        self._learner.learn(np.asarray(data, np.float32))

    def predict(self, data, **_concept):
        """Return verdicts, 1 for an anomaly, and scores, (n,) each."""
        judged = self._learner.version.judge(np.asarray(data, np.float32))
        return judged.is_anomaly.astype(int), judged.scores

    def name(self):
        """Return the name that results carry."""
        return f"anamnesis {self._config.strategy}"


class PycladStrategy:
    """A strategy of pyCLAD with one of pyCLAD's models, as a learner."""

    def __init__(self, strategy, model, seed):
        random.seed(seed)  # pyCLAD selects rows with this generator
        self.strategy, self.learned = _strategy(strategy, model, seed), 0
        self.kind = strategy

    def learn(self, X):
        """Learn the normals X (n, d) of one concept."""
        self.strategy.learn(X)
        self.learned += X.nbytes
        self.row = X[0].nbytes

    def score(self, X):
        """Return the score of each row, (n,)."""
        return self.strategy.predict(X)[1]

    def thresholds(self):
        """Return no threshold: pyCLAD's models promise no rate on new data."""
        return {}

    @property
    def bytes_kept(self):
        """Return how many bytes of real vectors are kept."""
        rows = self.learned // self.row
        return {"naive": 0, "cumulative": rows}.get(self.kind, min(rows, BUFFER)) * self.row


def _strategy(strategy, model, seed):
    seeded = {"random_state": seed} if model == "IF" else {}
    detector = _MODELS[model](**seeded)
    if strategy == "naive":
        return NaiveStrategy(detector)
    if strategy == "cumulative":
        return CumulativeStrategy(detector)
    kind = {"replay": ReplayEnhancedStrategy, "replay only": ReplayOnlyStrategy}[strategy]
    return kind(detector, AdaptiveBalancedReplayBuffer(RandomSelection(), BUFFER))


STRATEGIES = {
    f"pyCLAD {strategy}, {model}": (strategy, model)
    for strategy in ("naive", "cumulative", "replay", "replay only")
    for model in _MODELS
}


def run(strategy, tasks, judged):
    """Return the values of pyCLAD's metrics for a strategy in pyCLAD's scenario, by name.

    `tasks` and `judged` are as `benchmarks.continual.run_tasks` takes them.
    """
    train = [Concept(name=str(i), data=X) for i, X in enumerate(tasks)]
    test = [
        Concept(str(i), np.concatenate(pair), np.repeat([0, 1], [len(part) for part in pair]))
        for i, pair in enumerate(judged)
    ]
    metrics = [ContinualAverage(), BackwardTransfer(), ForwardTransfer()]
    watch = ConceptMetricCallback(RocAuc(), metrics)
    ConceptIncrementalScenario(ConceptsDataset("concepts", train, test), strategy, [watch]).run()
    (results,) = watch.info().values()
    return {name: float(value) for name, value in results["metrics"].items()}
