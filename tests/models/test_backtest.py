import tracemalloc

import numpy as np
import pytest

from models import Config, Model, VectorError
from models.backtest import BacktestResult, History, backtest, split_history
from models.parts.statistics import auroc_if_both, wilson
from models.progress import finish

SUMMER, WINTER = [20.0, 60.0], [0.0, 80.0]


def history(seed: int = 0, each: int = 400) -> History:
    """Return summer, winter and summer again; one vector in twenty is a known anomaly."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(c, [2, 5], (each, 2)) for c in (SUMMER, WINTER, SUMMER)])
    anomalous = np.arange(len(X)) % 20 == 7
    X[anomalous] += [0, 60]
    return History(X.astype(np.float32), anomalous)


def backtest_of(past: History, parts: list[slice], **config: object) -> BacktestResult:
    """Return the backtest's result for a history, with small trainings."""
    steps = backtest("arm", past, parts, Config(**{"model": Model(epochs=40), **config}))
    return finish(steps)


@pytest.fixture(scope="module")
def replayed() -> BacktestResult:
    """Learn the history with the defaults."""
    return backtest_of(history(), split_history(1200, 400, 200))


def test_windows_cover_every_row_once():
    """Windows cover every row once: the first, then batches; the last one takes the remainder."""
    parts = split_history(1030, 400, 200)
    assert [(p.start, p.stop) for p in parts] == [(0, 400), (400, 600), (600, 800), (800, 1030)]
    parts = split_history(1000)
    assert (len(parts), parts[0].stop, parts[-1].stop) == (11, 200, 1000)


@pytest.mark.parametrize(
    ("n", "first", "why"), [(99, None, "99 rows"), (200, 10, "10 rows"), (200, 200, "leaves none")]
)
def test_too_few_rows_are_refused(n: int, first: int | None, why: str):
    """A history with too few rows to learn or to score is refused."""
    with pytest.raises(VectorError, match=why):
        split_history(n, first)


def test_a_new_regime_does_not_count_as_false_alarms(replayed: BacktestResult):
    """Winter alarms until it is learned, and the held rate leaves it out."""
    rates = [batch.rate for batch in replayed.batches]
    assert rates[0] > 0.95
    assert max(rates[1:]) < 0.06
    assert replayed.new == 1
    assert replayed.held < 0.04
    assert replayed.interval[0] <= replayed.held <= replayed.interval[1]
    assert replayed.regimes == 2


def test_labelled_anomalies_are_ranked_and_never_learned(replayed: BacktestResult):
    """Labelled anomalies score above both regimes, before and after each is learned."""
    assert [batch.auroc > 0.99 for batch in replayed.batches[1:]] == [True] * 3
    for batch in replayed.batches[1:]:
        assert batch.alarms >= 10


def test_forgetting_is_measured_on_rows_that_were_not_learned(replayed: BacktestResult):
    """Replay forgets nothing; if winter alone is learned last, summer alarms."""
    assert abs(replayed.forgetting) < 0.05
    past = history()
    until_winter = History(past.vectors[:800], past.anomalous[:800])
    parts = split_history(800, 400, 400)
    finetuned = backtest_of(until_winter, parts, strategy="finetune", model=Model(epochs=300))
    assert finetuned.forgetting > 0.5


def test_a_first_window_of_anomalies_is_refused():
    """A first window without normals is refused."""
    past = history()
    with pytest.raises(VectorError, match="0 normals"):
        backtest_of(History(past.vectors, np.ones(1200, bool)), split_history(1200))


def test_ties_count_half_and_intervals_stay_in_range():
    """Ties count half, one class has no AUROC, and an interval stays within [0, 1]."""
    assert auroc_if_both(np.array([1.0]), np.array([1.0])) == 0.5
    assert auroc_if_both(np.array([1.0]), np.array([])) is None
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0


def test_a_history_read_in_pieces_gives_the_same_result(monkeypatch: pytest.MonkeyPatch):
    """A history that is read in pieces has the same result as one in memory."""
    whole = backtest_of(history(), split_history(1200, 400, 200), kind="mahalanobis")
    monkeypatch.setattr("models.backtest._PIECE", 37)
    assert backtest_of(history(), split_history(1200, 400, 200), kind="mahalanobis") == whole


class Drawn:
    """Rows (n, d) that are generated when they are read, so that a million are never in memory."""

    def __init__(self, n: int, d: int) -> None:
        self._n, self._d, self.most = n, d, 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._n)
        self.most = max(self.most, stop - start)
        rng = np.random.default_rng(start)
        return rng.normal(size=(stop - start, self._d)).astype(np.float32)


@pytest.mark.thorough
def test_a_history_larger_than_memory_is_learned(monkeypatch: pytest.MonkeyPatch):
    """Windows are read in pieces, and at most the bound of each is learned."""
    monkeypatch.setattr("models.backtest.LEARNED_MOST", 10_000)
    monkeypatch.setattr("models.backtest._PIECE", 20_000)
    rows = Drawn(1_000_000, 6)
    tracemalloc.start()
    result = backtest_of(History(rows), split_history(len(rows)), kind="mahalanobis")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.most == 20_000
    assert most < len(rows) * 6 * 4
    assert sum(batch.normals for batch in result.batches) == 800_000
    assert abs(result.held - 0.01) < 0.003
