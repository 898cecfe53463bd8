"""The demonstration's text and pictures agree with its numbers."""

import numpy as np
import pytest

from service.cli.demo import pictures
from service.cli.demo import run as demo
from service.cli.demo.table import Row, sentence


def _row(arm: str, auroc: float, *, digit: int = 9, pooled: float = 0.01) -> Row:
    alarms = dict.fromkeys(range(1, digit + 1), pooled)
    return Row(digit, arm, digit, 0.9, 0.1, 1.0, auroc, alarms, pooled, np.zeros((16, 64)))


@pytest.mark.parametrize(
    ("replay", "finetune", "verdict"),
    [
        (0.97, 0.61, "Replay kept what finetuning forgot"),
        (0.80, 0.82, "Replay and finetuning ended level"),
        (0.60, 0.90, "Replay did worse than finetuning"),
    ],
)
def test_the_conclusion_is_computed_from_the_numbers(replay, finetune, verdict):
    """The conclusion is computed: other numbers give another sentence."""
    rows = [_row("replay", 0.5, digit=8), _row("replay", replay), _row("finetune", finetune)]
    conclusion = sentence(rows, 0.01)
    assert conclusion.startswith(f"{verdict}: after digit 9")
    assert f"AUROC {replay:.3f}" in conclusion
    assert f"{finetune:.3f}" in conclusion


def test_rows_for_the_test_are_never_sent():
    """Train and test rows are disjoint, have every digit, and follow from the seed."""
    digits, same, other = demo.Digits.split(0), demo.Digits.split(0), demo.Digits.split(1)
    assert sum(map(len, digits.train.values())) == demo.TRAIN_ROWS
    assert sum(map(len, digits.train.values())) + sum(map(len, digits.test.values())) == 1797
    assert all(len(digits.test[digit]) >= 50 for digit in range(10))
    np.testing.assert_array_equal(digits.train[1], same.train[1])
    assert not np.array_equal(digits.train[1][:100], other.train[1][:100])


def test_pictures_are_pngs(tmp_path):
    """There is a picture of the AUROC, and a picture of samples for each arm."""
    pytest.importorskip("matplotlib")
    rows = [_row(arm, 0.9, digit=digit) for digit in (1, 2) for arm in ("replay", "finetune")]
    saved = pictures.save(rows, tmp_path)
    assert [path.name for path in saved] == [
        "auroc.png",
        "samples-replay.png",
        "samples-finetune.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in saved)
