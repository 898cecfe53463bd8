"""The score `auto` holds its rate on rows that no table of a part has seen."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import Config, Model, train
from models.arrays import Array, Float64
from models.parts import carried_calibration
from models.parts.calibration import Calibration, representable
from models.scores.auto import counted_parts, joined
from models.scores.by_regime import Surprise
from models.training import carried_parts
from models.training.auto import unseen

SIX, SEVEN = counted_parts(6, tree=False), counted_parts(7, tree=False)


def test_few_rows_hold_the_rate_though_each_part_may_alarm() -> None:
    """If 120 rows calibrate seven parts and their maximum, 1 % of fresh rows alarm, not 3 %."""
    rng, rates = np.random.default_rng(0), []
    for _ in range(3):
        learned, fresh = rng.gamma(2.0, size=(7, 120)), rng.gamma(2.0, size=(7, 20_000))
        tables = np.sort(representable(learned))
        pairs = zip(tables, fresh, strict=True)
        surprises = np.stack([Surprise(Calibration(table))(scores) for table, scores in pairs])
        score = joined(surprises, SEVEN)
        calibration = Calibration(np.sort(unseen(tables, learned, 1, SEVEN)))
        rates.append(float((score >= calibration.threshold({"fpr": 0.01}).value).mean()))
    assert 0.0 < np.mean(rates) < 0.02


def test_a_repeated_row_is_compared_with_the_others_alone() -> None:
    """All copies of a row are left out, but never more than the row has."""
    rng = np.random.default_rng(1)
    others = representable(rng.gamma(2.0, size=(6, 300)))
    row = representable(others.max(axis=1, keepdims=True) + 1.0)
    tables = np.concatenate([others, np.repeat(row, 5, axis=1)], axis=1)
    surprises = [
        Surprise(Calibration(np.sort(table)).without(slice(300, 305)))(score)
        for table, score in zip(tables, row, strict=True)
    ]
    alone = joined(np.stack(surprises), SIX)
    assert unseen(tables, row, 5, SIX) == representable(alone)
    assert unseen(tables, row, 4, SIX) < alone


def test_one_far_row_does_not_raise_a_low_threshold() -> None:
    """With 800 heavy-tailed rows and 1e-3 asked, the largest row decides, not its own distance."""
    tables = np.random.default_rng(2).gamma(2.0, size=(6, 800))
    tables[2, 5] = 500.0
    tables = representable(tables)
    calibration = Calibration(np.sort(unseen(np.sort(tables), tables, 1, SIX)))
    assert calibration.threshold({"fpr": 1e-3}).value < 30.0


@pytest.mark.parametrize(("equal", "least"), [(False, 0.5), (True, 0.01)])
def test_a_tree_of_few_levels_does_not_decide_which_drawn_vectors_count(
    equal: bool, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most drawn vectors have the lowest level of the pairs, as most normals have."""

    def rows(stream: int) -> Array:
        rng = np.random.default_rng(stream)
        a, b = rng.integers(0, 5, (2, 800))
        if equal:
            x = rng.normal(size=800)
            return np.stack([x, x, np.ones(800), b % 2], axis=1).astype(np.float32)
        return np.stack([a, (a + b % 2) % 5, 2 * a % 5, b], axis=1).astype(np.float32)

    shares = []

    def resembling(parts: Float64, *others: Any) -> NDArray[np.int64]:
        chosen = carried_calibration.resembling(parts, *others)
        shares.append(len(np.unique(chosen)) / len(chosen))
        return chosen

    monkeypatch.setattr(carried_parts, "resembling", resembling)
    config = Config(model=Model(epochs=20, hidden=(24, 24)))
    train(train(None, rows(0), config), rows(1), config)
    assert shares[0] > least
