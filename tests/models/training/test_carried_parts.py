"""The parts' scores of generated vectors give the scores of both versions."""

import numpy as np
import pytest

from models import Config, Model, train
from models.arrays import Array
from models.scores.auto import FEW_FEATURES, Auto
from models.training.carried_parts import GeneratedScores


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
    """Before, two such updates made the trees' tables so high that a tenth was found."""
    rng = np.random.default_rng(0)
    partner = rng.permutation(40)

    def codes(n: int) -> Array:
        first = rng.integers(40, size=n)
        second = partner[(first + rng.integers(3, size=n)) % 40]
        columns = first, second, rng.integers(6, size=n), rng.normal(size=n)
        return np.stack(columns, axis=1).astype(np.float32)

    version = train(None, codes(2000), Config(model=Model(latent=3, hidden=(16,), epochs=3)))
    normals, mixed = codes(1000), codes(1000)
    mixed[:, 1] = rng.permutation(mixed[:, 1])
    for _ in range(2):
        version = train(version, codes(40), version.config)
    assert version.is_anomaly(mixed).mean() > 0.4
    assert version.is_anomaly(normals).mean() < 0.03
