"""The measures of membership, on versions whose answers are known."""

from types import SimpleNamespace

import numpy as np

from benchmarks.membership import guesses, halves, summary


def version(scores, drawn, listed=()):
    """Return a stand-in for a version: it scores rows by `scores` and draws `drawn`."""
    return SimpleNamespace(
        score=scores,
        sample=lambda *_, **__: drawn,
        calibration=SimpleNamespace(scores=np.asarray(listed)),
    )


def test_each_attack_recognises_learned_vectors() -> None:
    """Lower scores, nearer draws and listed scores each indicate a member."""
    rng = np.random.default_rng(0)
    members, others = halves(rng.normal(size=(200, 3)), rng)
    known = {row.tobytes() for row in members}
    scores = lambda X: np.array([0.0 if row.tobytes() in known else 1.0 for row in X])  # noqa: E731
    guessed = guesses(version(scores, members, [0.0]), members, others, 0)
    assert guessed == {"score": 1.0, "distance": 1.0, "listed": 1.0, "by chance": 0.0}
    hidden = guesses(version(lambda X: np.zeros(len(X)), others, [1.0]), members, others, 0)
    assert hidden == {"score": 0.5, "distance": 0.0, "listed": 0.0, "by chance": 0.0}


def test_halves_are_disjoint_and_complete() -> None:
    """Two random halves have no common row, and lose none."""
    X = np.arange(30.0).reshape(10, 3)
    parts = halves(X, np.random.default_rng(1))
    assert [len(part) for part in parts] == [5, 5]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts), axis=0), X)


def test_summary_averages_over_seeds() -> None:
    """The summary has one row for each version: means, and the deviation of the AUCs."""
    runs = [[{"data": "x", "version": 1, "score": s, "distance": 0.5}] for s in (0.6, 0.8)]
    (row,) = summary(runs)
    assert abs(row["score"] - 0.7) < 1e-9
    assert abs(row["+- score"] - 0.1) < 1e-9
    assert row["+- distance"] == 0.0
