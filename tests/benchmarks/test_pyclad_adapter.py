import numpy as np
import pytest

from benchmarks.continual import run_tasks
from benchmarks.learners import Ours
from benchmarks.transfer import backward_transfer_stepwise, continual_average, forward_transfer
from models import Config, Model

pytest.importorskip("pyclad", reason="needs the extra `peers`")


def test_pyclad_and_this_project_measure_the_same_figures():
    """The same learner has the same three figures in pyCLAD's scenario and in this project's."""
    from benchmarks.pyclad_adapter import Anamnesis, run

    rng = np.random.default_rng(0)
    tasks = [rng.normal(place, 1, (80, 3)).astype(np.float32) for place in (0, 6, 3)]
    judged = [(X[:30], rng.normal(-3, 2, (20, 3)).astype(np.float32)) for X in tasks]
    config = Config(model=Model(epochs=5))
    _, R = run_tasks(Ours(config), tasks, judged)
    assert run(Anamnesis(config), tasks, judged) == pytest.approx(
        {
            "ContinualAverage": continual_average(R),
            "BackwardTransfer": backward_transfer_stepwise(R),
            "ForwardTransfer": forward_transfer(R),
        }
    )
