import numpy as np
import pytest

from benchmarks.vus_pr import vus_pr


@pytest.mark.parametrize(
    ("window", "known"), [(0, 0.32253394), (10, 0.35829612), (31, 0.40953524), (200, 0.71398994)]
)
def test_vus_pr_equals_the_figures_of_its_authors(window, known):
    """The package `vus` 0.0.6 gives these figures for the same scores, also where windows touch."""
    rng = np.random.default_rng(1)
    labels = np.zeros(600, int)
    for start, rows in ((40, 20), (70, 5), (200, 60), (400, 1), (590, 10)):
        labels[start : start + rows] = 1
    scores = rng.normal(size=600) + 1.5 * labels * (rng.random(600) < 0.7)
    assert vus_pr(scores, labels, window) == pytest.approx(known, abs=1e-8)
    if window == 10:  # equal scores
        assert vus_pr(np.round(scores, 1), labels, window) == pytest.approx(0.35316824, abs=1e-8)
