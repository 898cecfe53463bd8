"""Generated vectors that are unlike real ones do not decide how calibration scores change."""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.parts.carried_calibration import carried, resembling

N = 4_000


def real_like(rng: np.random.Generator) -> Float64:
    """Return the scores of N vectors by two parts that agree in the tail, (2, N)."""
    common = rng.exponential(size=N)
    return common + 0.3 * rng.exponential(size=(2, N))


def test_resembling_vectors_have_the_shares_of_real_scores() -> None:
    """Each part's scores above a p-value have that share."""
    rng = np.random.default_rng(0)
    tables = real_like(rng)
    unlike = real_like(rng)
    unlike[0, ::2] += 2.0  # half of the vectors score too high by one part
    chosen = resembling(unlike, tables, rng)
    for scores, table in zip(unlike[:, chosen], tables, strict=True):
        for p in (0.5, 0.1, 0.02):
            assert abs((scores >= np.quantile(table, 1.0 - p)).mean() - p) < 0.2 * p


def test_unlike_generated_vectors_do_not_move_the_calibration() -> None:
    """Half of the generated vectors differ by the second part, and change differently."""
    rng = np.random.default_rng(1)
    tables, drawn = real_like(rng), real_like(rng)
    drawn[1, ::2] += 4.0
    change = np.full(N, 1.0)
    change[::2] = -3.0
    chosen = resembling(drawn, tables, rng)
    old = np.sort(tables[0])

    def error(rows: slice | NDArray[np.int64]) -> float:
        before = drawn[0, rows]
        moved = carried(old, before, before + change[rows])
        return abs(float(np.quantile(moved, 0.99) - np.quantile(old + 1.0, 0.99)))

    assert error(slice(None)) > 0.4
    assert error(chosen) < 0.2


def test_equal_scores_and_too_few_tables_are_no_obstacle() -> None:
    """One part is constant, and an earlier version has one part less."""
    rng = np.random.default_rng(2)
    drawn = np.stack([np.zeros(N), rng.normal(size=N), rng.normal(size=N)])
    chosen = resembling(drawn, [np.zeros(50), np.sort(rng.normal(size=50))], rng)
    assert chosen.shape == (N,)
    assert chosen.min() >= 0
    assert chosen.max() < N
