from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import Config, Model, Version, train
from models.arrays import Array
from models.config import STRATEGIES
from models.parts.network import Shape
from models.strategies.alignment import misalignment
from models.strategies.distillation import distillation_on_new, divergence, teacher, teacher_answers
from models.strategies.ewc import LAMBDA, consolidation, fisher_diagonal
from models.strategies.past import PASTS, ROOM, Past, distillation, past_of, replay
from models.strategies.step_losses import TrainingSetting
from models.vae.vae import VAE

QUICK = Model(epochs=2)


def setting(vae: VAE, w_prev: float = 0.75) -> TrainingSetting:
    """Return the setting of a training of this network."""
    return TrainingSetting(vae, w_prev, 1 - w_prev, batch_size=8, seed=0)


def test_every_strategy_has_a_past_and_a_paper() -> None:
    """Every strategy of the config exists, and its docstring names its paper."""
    assert set(PASTS) == set(STRATEGIES)
    assert all(len(strategy.__doc__ or "") > 50 for strategy in PASTS.values())


@pytest.mark.parametrize("strategy", [*STRATEGIES, "replay+distillation+reservoir"])
def test_every_strategy_learns_three_experiences_and_is_saved(
    strategy: str, blob: Array, tmp_path: Path
) -> None:
    """Every strategy learns three experiences, with finite and repeatable scores, and is saved."""
    config = Config(strategy=strategy, model=Model(epochs=2, exemplars=60))
    version = None
    for shift in (0.0, 10.0, 20.0):
        version = train(version, blob[:200] + shift * blob.std(axis=0), config)
        version.save(tmp_path / "v")
        version = Version.load(tmp_path / "v")
    assert version is not None
    assert np.isfinite(version.score(blob)).all()
    assert version.lineage.experiences == 3
    assert version.lineage.bytes_kept == version.kept.nbytes
    kept = {"joint": 600, "window": 60, "reservoir": 60, "icarl": 60}
    assert len(version.kept) == kept.get(strategy.rsplit("+", maxsplit=1)[-1], 0)


def test_combined_strategies_have_the_parts_of_each(first: Version) -> None:
    """`replay+reservoir+ewc` replays both ways and has the penalty of the Fisher information."""
    joined = past_of(first, Config(strategy="replay+reservoir+ewc"))
    assert joined.generator is not None
    assert joined.keep is not None
    assert len(joined.extras) == len(joined.remember) == 1
    assert joined.learned == first.lineage.learned
    assert Past() | joined == joined


def test_the_fisher_information_is_the_mean_of_squares() -> None:
    """With zero weights the last bias has gradient -x, and the noise (1 - x^2) / 2."""
    vae = VAE(Shape(2, 1, (3,), "gaussian"))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    x = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
    fisher = fisher_diagonal(vae, x, seed=0)
    # The mean gradient of the first feature is 0; the mean of its squares is 1.
    np.testing.assert_allclose(fisher["fisher.decoder.1.bias"], [[1.0, 10.0]])
    np.testing.assert_allclose(fisher["fisher.noise"], [[0.0, (1.5**2 + 7.5**2) / 2]])


def test_the_penalty_of_ewc_is_a_weighted_square(first: Version, blob: Array) -> None:
    """The penalty is lambda/2 sum F (theta - theta*)^2, which is 0 at theta*."""
    version = train(first, blob, Config(strategy="ewc", model=QUICK))
    vae = teacher(version, torch.device("cpu"))
    loss = consolidation(version, setting(vae))
    batch, rng = torch.zeros(1, 4, 6), torch.Generator()
    assert float(loss(batch, 0, rng)) == 0.0
    with torch.no_grad():
        vae.noise.add_(2.0)
    fisher = float(version.memory["fisher.noise"].sum())
    assert float(loss(batch, 0, rng)) == pytest.approx(0.5 * LAMBDA * 3.0 * fisher * 4.0, rel=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_soft_targets_cost_nothing_where_the_answers_agree(likelihood: str) -> None:
    """D(x) is 0 for the teacher itself and positive for any other network."""
    shape = Shape(5, 2, (7,), likelihood)
    small, other = VAE(shape, seed=1), VAE(shape, networks=3, seed=2)
    x = torch.rand(1, 9, 5)
    same = divergence(small, small, x, torch.Generator())
    torch.testing.assert_close(same, torch.zeros(1, 9), atol=1e-5, rtol=0)
    assert (divergence(small, other, x, torch.Generator()) > 0).all()


def test_the_divergence_of_known_gaussians() -> None:
    """A decoder that is off by 2 in one feature, at noise 1, is 2 nats away."""
    shape = Shape(3, 2, (4,), "gaussian")
    first, other = VAE(shape), VAE(shape)
    with torch.no_grad():
        last = other.decoder.layers[-1]
        last.bias[..., 0] += 2.0
    x = torch.rand(1, 6, 3)
    d = divergence(first, other, x, torch.Generator())
    torch.testing.assert_close(d, torch.full((1, 6), 2.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        misalignment(first, other, torch.zeros(6, 2)), torch.full((1, 6), 4.0), atol=1e-5, rtol=1e-5
    )


def test_learning_without_forgetting_weighs_new_rows_alone(first: Version) -> None:
    """Only new rows get the penalty: old rows would change nothing."""
    vae = VAE(first.network.shape, networks=2, seed=3)
    batch = torch.randn(2, 8, 6)
    loss = distillation_on_new(first, setting(vae))
    whole, other = batch.clone(), batch.clone()
    other[:, :5] += 1.0
    rngs = [torch.Generator().manual_seed(1) for _ in range(2)]
    losses, same = (loss(x, 5, rng) for x, rng in zip((whole, other), rngs, strict=True))
    assert (losses > 0).all()
    torch.testing.assert_close(losses, same)


def test_the_teacher_answers_with_code_and_reconstruction(first: Version) -> None:
    """The previous version answers its own draws with code, reconstruction and noise."""
    x = first.draw(50, np.random.default_rng(0))
    answers = teacher_answers(first, x, np.random.default_rng(1))
    mean, log_variance = first.network.encode(x)
    np.testing.assert_array_equal(answers.mean, mean)
    np.testing.assert_array_equal(answers.log_variance, log_variance)
    off = (answers.z.numpy() - mean) / np.exp(0.5 * log_variance)
    assert abs(off.mean()) < 0.3
    assert 0.7 < off.std() < 1.3
    np.testing.assert_array_equal(answers.decoded, first.network.decode(answers.z.numpy()))
    np.testing.assert_allclose(answers.variance, first.network.noise_deviation()[0] ** 2)


def test_targets_are_soft_where_codes_have_room(first: Version) -> None:
    """Targets are soft if codes have room or the config says so; `distillation` always has them."""
    soft, hard = (Config(model=Model(targets=targets)) for targets in ("soft", "hard"))
    assert first.network.shape.latent < ROOM
    assert replay(first, Config()).teacher is None
    assert replay(first, soft).teacher is first
    wide = Shape(6, ROOM, (8,), "gaussian")
    roomy = replace(first, network=VAE(wide).network(0))
    assert replay(roomy, Config()).teacher is roomy
    assert replay(roomy, hard).teacher is None
    assert distillation(first, hard).teacher is first


def test_the_strategy_fixed_changes_only_the_last_layer(first: Version, blob: Array) -> None:
    """After the first experience only the decoder's last layer and the noise change."""
    version = train(first, 2 * blob, Config(strategy="fixed", model=QUICK))
    moved = {
        name
        for name, tensor in version.network.tensors.items()
        if not np.array_equal(tensor, first.network.tensors[name])
    }
    assert moved == {"noise", "decoder.2.weight", "decoder.2.bias"}


def test_the_stable_regime_lowers_the_learning_rate(first: Version, blob: Array) -> None:
    """Batches are small, and the learning rate starts high and falls with every experience."""
    config = Config(model=Model(epochs=1, regime="stable"))
    plain = first.lineage.training
    stable = train(None, blob, config)
    later = train(stable, blob, config)
    assert stable.lineage.training.batch_size == plain.batch_size // 2
    assert stable.lineage.training.learning_rate == 2 * plain.learning_rate
    rates = [v.lineage.training.learning_rate for v in (stable, later)]
    assert rates[1] == pytest.approx(0.8 * rates[0])
