from benchmarks.runs import Runs


def measured(arm: str, seed: int) -> dict[str, object]:
    """Return a result that can be saved."""
    return {"arm": arm, "seed": seed}


def failing(arm: str, seed: int) -> dict[str, object]:
    """Fail the test: a saved measurement is not repeated."""
    raise AssertionError(arm, seed)


def test_saved_results_are_not_measured_again(tmp_path):
    """A continued run uses the saved results, in the order that was asked for."""
    runs = Runs(tmp_path, {"images": 10}, workers=1)
    runs.run(measured, [("5-NN joint", 0)], str)
    both = [("5-NN joint", 0), ("replay, prior + mean", 1)]
    runs.run(measured, both, str)
    assert list(runs.run(failing, both, str)) == both
    assert runs.states(both) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "5-nn-joint.0.json",
        "replay-prior-mean.1.json",
    ]


def test_results_of_other_options_are_not_used(tmp_path):
    """A result that was measured with other options is not used."""
    Runs(tmp_path, {"images": 10}, workers=1).run(measured, [("replay", 0)], str)
    other = Runs(tmp_path, {"images": 20}, workers=1, done=True)
    assert other.run(failing, [("replay", 0)], str) == {}
