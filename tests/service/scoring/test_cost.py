"""The measured cost of judging decides what is judged in the event loop."""

import pytest

from service.domain.inline_bounds import WIDEST
from service.scoring import cost
from service.scoring.cost import (
    BUDGET_SECONDS,
    affordable_rows,
    budget_share,
    fits_inline,
    inline_bounds,
)
from service.scoring.vectors import JSON, NPY, OCTETS


@pytest.mark.parametrize(
    ("lone", "more", "rows", "most_tried"),
    [
        (60e-6, 2e-6, 1376, 64),  # elbo
        (60e-6, 20e-6, 193, 64),
        (1e-3, 1e-3, 4, 8),
        (0.29, 0.29, 0, 1),  # millions of neighbours
    ],
)
def test_the_bound_on_rows_fits_the_budget(
    monkeypatch: pytest.MonkeyPatch, lone: float, more: float, rows: int, most_tried: int
) -> None:
    """Few rows are tried first, so that a costly score is not computed for many."""
    tried = []

    def seconds_for(score_rows: object, n: int) -> float:
        tried.append(n)
        accident = 1.0 if len(tried) == 1 else 0.0  # another process had the processor in between
        return accident + lone + more * (n - 1)

    monkeypatch.setattr(cost, "_timed", seconds_for)
    bound = affordable_rows(lambda _: None)
    assert bound == rows
    assert max(tried) == most_tried
    assert bound * more <= BUDGET_SECONDS


def test_bounds_follow_from_rows_and_media_type() -> None:
    """A type whose numbers can be shorter has the lower bound; zero rows give zero bytes."""
    bounds = inline_bounds(dimension=10, rows=100)
    assert (bounds.json, bounds.octets, bounds.npy) == (12_000, 4000, 1000)
    assert fits_inline(OCTETS, 4000, bounds)
    assert not fits_inline(NPY, 4000, bounds)
    assert budget_share(JSON, 6000, bounds) == 0.5
    for kind in (JSON, OCTETS, NPY):
        assert not fits_inline(kind, 1, inline_bounds(10, 0))
    widest = inline_bounds(10**6, 10**6)
    assert widest.octets <= WIDEST.octets
