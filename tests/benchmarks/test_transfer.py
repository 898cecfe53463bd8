import numpy as np
import pytest

from benchmarks.continual import run_tasks
from benchmarks.learners import Ours
from benchmarks.transfer import (
    backward_transfer,
    backward_transfer_stepwise,
    continual_average,
    forgetting,
    forward_transfer,
)
from models import Config, Model

# Three tasks; row i is what each scores after learning task i.
R = np.array([[1.0, 0.5, 0.4], [0.8, 0.9, 0.5], [0.5, 0.8, 1.0]])


def test_each_transfer_measure_equals_its_formula() -> None:
    """Each measure equals its formula on three tasks."""
    assert continual_average(R) == pytest.approx((1 + 0.8 + 0.9 + 0.5 + 0.8 + 1) / 6)
    assert backward_transfer(R) == pytest.approx((-0.2 - 0.5 - 0.1) / 3)
    assert backward_transfer_stepwise(R) == pytest.approx((-0.2 - 0.3 - 0.1) / 3)
    assert forward_transfer(R) == pytest.approx((0.5 + 0.4 + 0.5) / 3)
    np.testing.assert_allclose(forgetting(R), [0.5, 0.1, 0.0])


def test_lifetime_measures_every_task_after_every_experience() -> None:
    """R is complete, with the future tasks too; the held rate is of the tasks learned so far."""
    rng = np.random.default_rng(0)
    near, far = (rng.normal(place, 1, (80, 3)).astype(np.float32) for place in (0, 12))
    anomalies = rng.normal(-12, 1, (20, 3)).astype(np.float32)
    learner = Ours(Config(model=Model(epochs=20)))
    rows, learned = run_tasks(learner, [near, far], [(near, anomalies), (far, anomalies)])
    assert learned.shape == (2, 2)
    assert learned[0, 0] > 0.99
    assert [len(row["alarms"]["fpr"]) for row in rows] == [1, 2]
    assert rows[-1]["bytes_kept"] == 0
