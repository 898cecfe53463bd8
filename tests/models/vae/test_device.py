"""The choice of the device, and that a training step keeps everything on it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models import Config, ConfigError, Model, train, use_device
from models.parts.network import Shape
from models.strategies.past import PASTS
from models.strategies.step_losses import TrainingSetting
from models.vae import device
from models.vae.adam import Adam
from models.vae.gradient import Gradient, TeacherAnswers
from models.vae.noise import RunningNoise
from models.vae.vae import VAE

QUICK = Model(epochs=1, hidden=(8,), latent=3)


@pytest.fixture(autouse=True)
def choose_processor_again() -> Iterator[None]:
    """Choose the processor again."""
    yield
    use_device("cpu")


@pytest.mark.parametrize(
    ("built", "why"), [(None, "was built without CUDA"), ("12.8", "finds none")]
)
def test_an_absent_device_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, built: str | None, why: str
) -> None:
    """`cuda` is refused with the reason, an unknown name too; `auto` is then the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    assert use_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=f"cuda needs a GPU, and torch .* {why}"):
        use_device("cuda")
    with pytest.raises(ConfigError, match="'tpu' is none of cpu, auto, cuda"):
        use_device("tpu")
    assert device.device() == torch.device("cpu")


def test_auto_chooses_a_gpu_that_torch_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` and `cuda` choose a GPU that torch can use; `cpu` stays the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for wanted, chosen in (("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")):
        assert use_device(wanted) == chosen == device.device().type


def test_the_choice_of_the_processor_changes_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` without a GPU gives the same bytes as no choice."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    config = Config(model=QUICK)
    before = train(None, x, config).to_bytes()
    use_device("auto")
    assert train(None, x, config).to_bytes() == before


@pytest.mark.parametrize("strategy", ["replay", "lwf", "ewc", "replay_alignment"])
def test_a_step_keeps_every_tensor_on_the_device(strategy: str) -> None:
    """Torch's device `meta` computes nothing, but refuses to mix tensors of two devices."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    config = Config(strategy=strategy, score="elbo", model=QUICK)
    extras = PASTS[strategy](train(None, x, config), config).extras
    vae = VAE(Shape(4, 3, (8,), "gaussian"), networks=2, dropout=0.1).to("meta").train()
    setting = TrainingSetting(vae, 0.5, 0.5, batch_size=6, seed=0)
    rng, parts = torch.Generator(), [torch.ones(3, width) for width in (3, 3, 3, 4)]
    answers = TeacherAnswers(*parts, torch.ones(4)).to(setting.device)
    gradient, batch = Gradient(vae), torch.ones(2, 6, 4).to(setting.device)
    each = gradient(batch, 1.0, rng, answers, read_loss=True)
    for extra in extras:
        more = extra(setting)(batch, 3, rng)
        more.sum().backward()  # type: ignore[no-untyped-call]
        each = each + more
    Adam([gradient.flat]).step(0.01)
    RunningNoise(vae, warm=True).update(gradient.squares)
    assert {tensor.device.type for tensor in (each, gradient.flat, vae.noise)} == {"meta"}
