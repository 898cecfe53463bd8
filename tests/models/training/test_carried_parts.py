"""The parts' scores of generated vectors give the scores of both versions."""

import numpy as np
import pytest

from models import Config, Model, train
from models.arrays import Array
from models.scores.auto import FEW_FEATURES, Auto
from models.training.carried_parts import GeneratedScores
from tests.models.training.code_table import CodeTable


@pytest.mark.parametrize("score", ["auto", "elbo"])
def test_a_champion_scores_generated_vectors_as_it_serves(score: str) -> None:
    """The parts are scored once; joined they are the champion's score, of whatever name it is."""

    def rows(stream: int) -> Array:
        a, b = np.random.default_rng(stream).integers(0, 5, (2, 300))
        return np.stack([a, (a + b % 2) % 5, b], axis=1).astype(np.float32)

    config = Config(model=Model(epochs=5, hidden=(16,)))
    later = train(None, rows(0), config)
    champion = train(None, rows(1), Config(score=score, model=config.model))
    after = Auto.from_tensors(later.network, later.scoring)
    x = champion.draw(100, np.random.default_rng(2))
    before, now = GeneratedScores.measure(champion, after, x).joined(after)
    np.testing.assert_array_equal(before, champion.score_scaled(x))
    # If the champion has trees, they score the vectors for both versions.
    assert (score == "elbo") == bool((now == after(x)).all())
    assert set(FEW_FEATURES) <= set(after.counted)


def test_updates_with_few_rows_still_find_values_that_never_occur_together() -> None:
    """Two such updates do not raise the tables of the trees so far that few values are found."""
    table = CodeTable()
    model = Model(latent=3, hidden=(16,), epochs=3)
    version = train(None, table.rows(2000), Config(model=model))
    normals, mixed = table.rows(1000), table.mixed(1000)
    for _ in range(2):
        version = train(version, table.rows(40), version.config)
    assert version.is_anomaly(mixed).mean() > 0.7
    assert version.is_anomaly(normals).mean() < 0.03
