import numpy as np

from benchmarks.telemetry import Stage, follow, quarters, windows


class Largest:
    """Scores a row by its value and alarms at the largest one learned."""

    def learn(self, X):
        """Learn (n, 1)."""
        self.largest = X.max()

    def score(self, X):
        """Return the values."""
        return X[:, 0]

    def threshold(self, rate):
        """Return the largest learned value, whatever the rate."""
        del rate
        return self.largest


def column(*values: float) -> np.ndarray:
    """Return (n, 1)."""
    return np.array(values, np.float32)[:, None]


def test_labelled_windows_are_numbered_over_the_whole_stream():
    """A window that a border cuts is one window."""
    assert windows(np.array([0, 1, 1, 0, 1])).tolist() == [0, 1, 1, 0, 2]


def test_normals_of_a_quarter_are_learned_in_the_next_stage():
    """The normals of a quarter are learned in the next stage; labelled rows are never learned."""
    X, numbered = column(*range(8)), np.array([0, 1, 1, 0, 0, 0, 0, 0])
    stages = quarters(column(9), X, numbered, step=60.0)
    assert [stage.learned[:, 0].tolist() for stage in stages] == [[9], [0], [3], [4, 5]]


def test_false_alarms_windows_and_days_equal_counts_by_hand():
    """False alarms, found windows and days equal those counted by hand."""
    first = Stage(column(*[5] * 32), column(6, 1, 9, 1), np.array([0, 0, 1, 0]), 21_600.0)
    second = Stage(column(*[1] * 32), column(0, 0), np.array([0, 2]), 21_600.0)
    result = follow(Largest(), [first, second])
    at = result["at"]["0.01"]
    assert (result["days"], result["normals"], result["windows"]) == (1.0, 4, 2)
    assert (at["false"], at["found"]) == (1, 1)
    assert (at["old false"], at["old normals"]) == (3, 3)
