import numpy as np

from benchmarks.blocks import ROUNDS, parts
from benchmarks.missing_values import with_gaps


def test_the_parts_of_a_block_share_no_row():
    """Six parts hold each row once, in their order."""
    cut = parts(np.arange(1205)[:, None])
    assert len(cut) == ROUNDS + 1
    assert {len(part) for part in cut} <= set(range(195, 207))
    assert sorted(row for part in cut for row in part[:, 0].tolist()) == list(range(1205))
    assert all((np.diff(part[:, 0]) > 0).all() for part in cut)


def test_no_row_loses_all_of_its_values():
    """About the asked share of the values is missing, and every row keeps one."""
    X = with_gaps(np.zeros((2000, 3)), 0.9, np.random.default_rng(0))
    assert (np.isnan(X).sum(axis=1) < 3).all()
    assert 0.55 < np.isnan(X).mean() < 0.65
