"""Rows that a person labelled normal are learned, even if they are few."""

import numpy as np
import pytest

from models import Config, Model, VectorError, train
from models.training import labelled_rows

CONFIG = Config(model=Model(epochs=40))


@pytest.mark.parametrize(
    ("n", "labelled", "w_new"), [(1000, 2, 0.2), (1000, 58, 0.2), (300, 58, 1.0), (5000, 50, 0.5)]
)
def test_labelled_rows_are_at_most_a_fifth_of_the_training(
    n: int, labelled: int, w_new: float
) -> None:
    """All copies together are at most a fifth of the training, and at most half of the new rows."""
    times = 1 + labelled_rows.copies(n, labelled, w_new)
    share = labelled * times / (n + labelled * (times - 1))
    assert w_new * share <= max(0.2, w_new * labelled / n) + 1e-9
    assert share <= 0.5
    assert share > 2 * labelled / n or times == 1


def test_two_labelled_rows_stop_alarming() -> None:
    """Two labelled rows far away stop alarming; rows far away elsewhere still alarm."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(1500, 4)).astype(np.float32)
    normals[:, 1] = normals[:, 0] + 0.1 * normals[:, 1]
    first = train(None, normals[:1000], CONFIG)
    odd = np.array([[6.0, 6.2, -5.0, 5.0], [6.3, 6.0, -5.2, 4.8]], np.float32)
    assert first.is_anomaly(odd).all()
    new = np.concatenate([normals[1000:], odd])
    vouched = np.arange(len(new)) >= len(normals) - 1000
    taught = train(first, new, CONFIG, vouched=vouched)
    assert not taught.is_anomaly(odd).any()
    elsewhere = odd * np.array([1.0, -1.0, -1.0, -1.0], np.float32)
    assert taught.is_anomaly(elsewhere).all()
    assert taught.is_anomaly(rng.normal(size=(2000, 4)) * [1, 0, 1, 1] + 0.0).mean() < 1.0
    held_out = rng.normal(size=(2000, 4)).astype(np.float32)
    held_out[:, 1] = held_out[:, 0] + 0.1 * held_out[:, 1]
    assert taught.is_anomaly(held_out).mean() < 0.03
    alone = train(first, odd, CONFIG, vouched=np.ones(2, bool))
    assert not alone.is_anomaly(odd).any()
    assert alone.is_anomaly(elsewhere).all()
    assert alone.is_anomaly(held_out).mean() < 0.03
    assert (alone.lineage.n_new, alone.lineage.learned) == (2, 1002)
    many = (odd[0] + 0.1 * rng.normal(size=(58, 4))).astype(np.float32)
    dismissed = train(first, many, CONFIG, vouched=np.ones(58, bool))
    assert not dismissed.is_anomaly(many).any()
    assert dismissed.is_anomaly(elsewhere).all()
    assert dismissed.lineage.learned == 1058
    regime = (odd[0] + 0.3 * rng.normal(size=(400, 4))).astype(np.float32)
    taught = train(first, regime, CONFIG, vouched=np.ones(400, bool))
    assert taught.is_anomaly(regime).mean() < 0.05
    assert taught.is_anomaly(held_out).mean() < 0.03
    with pytest.raises(VectorError, match="a training needs 32"):
        train(first, odd, CONFIG)


def test_without_labels_nothing_changes() -> None:
    """A mask without labelled rows gives the same version, bit for bit."""
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    config = Config(model=Model(epochs=3, hidden=(8,), latent=2))
    plain = train(None, X, config)
    assert train(None, X, config, vouched=np.zeros(200, bool)).to_bytes() == plain.to_bytes()
    assert plain.lineage.incidents.rows == 200
