"""The gradient computed by hand equals autograd's."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from models.parts.network import Shape
from models.vae.gradient import Gradient, TeacherAnswers
from models.vae.vae import VAE


def rng() -> torch.Generator:
    """Return a generator in the same state every time."""
    return torch.Generator().manual_seed(1)


def loss(vae: VAE, x: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the mean negative ELBO of each network, (M,), with the noise that `rng` draws."""
    noise = torch.randn(*x.shape[:2], vae.shape.latent, generator=rng())
    each: torch.Tensor = vae(x, noise, beta)
    return each.mean(-1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "categories"])
def test_loss_and_gradients_equal_those_of_autograd(seed: int, likelihood: str) -> None:
    """Loss and all gradients equal autograd's, also where variances and noise are clamped."""
    categories = (2, 4) if likelihood == "categories" else ()
    name = "gaussian" if categories else likelihood
    hidden = (17, 9)[: 1 + seed % 2]
    shape = Shape(11, 3, hidden, name, noise_floor=-0.2, categories=categories)
    vae, other = (VAE(shape, networks=3, seed=seed) for _ in range(2))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=rng()))
        vae.encoder.layers[-1].weight.mul_(6.0)  # some log variances leave their range
    other.load_state_dict(vae.state_dict())
    gradient = Gradient(other)
    x = torch.rand(3, 20, 11, generator=rng())
    for block in shape.slot_slices:  # soft targets sum to 1, as one-hot ones do
        x[..., block] = torch.softmax(x[..., block], -1)
    expected = loss(vae, x, 0.7)
    expected.sum().backward()
    gradient(torch.rand(3, 7, 11), 1.0, rng(), read_loss=False)  # no effect on what follows
    own_loss = gradient(x, 0.7, rng(), read_loss=True)
    torch.testing.assert_close(own_loss, expected.detach())
    for mine, its in zip(other.parameters(), vae.parameters(), strict=True):
        assert mine.grad is not None
        wanted = torch.zeros_like(its) if its.grad is None else its.grad
        largest = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(mine.grad, wanted, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_gradients_of_answers_equal_those_of_autograd(likelihood: str) -> None:
    """With answers on old rows the gradient equals autograd's of both divergences."""
    shape, old, n = Shape(5, 2, (8,), likelihood), 6, 10
    vae, other = (VAE(shape, networks=2, seed=3) for _ in range(2))
    x, noise = torch.rand(2, n, 5, generator=rng()), torch.randn(2, n, 2, generator=rng())
    bernoulli = likelihood == "bernoulli"
    answers = TeacherAnswers(
        torch.randn(old, 2, generator=rng()),
        torch.randn(old, 2, generator=rng()),
        torch.randn(old, 2, generator=rng()),
        torch.rand(old, 5, generator=rng()),
        torch.zeros(1) if bernoulli else torch.rand(5, generator=rng()),
        weight=2.5,
    )

    mean, log_variance = vae.encode(x[:, :old])
    previous = Normal(answers.mean, (0.5 * answers.log_variance).exp())
    codes = kl_divergence(previous, Normal(mean, (0.5 * log_variance).exp())).sum(-1)
    decoded = vae.decoder(answers.z.expand(2, -1, -1))
    if bernoulli:
        was = Bernoulli(answers.decoded.expand_as(decoded))
        shown = kl_divergence(was, Bernoulli(logits=decoded)).sum(-1)
    else:
        was = Normal(answers.decoded, answers.variance.sqrt())
        shown = kl_divergence(was, Normal(decoded, (0.5 * vae.noise).exp())).sum(-1)
    ((vae(x, noise).sum(1) + 2.5 * (codes + shown).sum(1)) / n).sum().backward()

    gradient = Gradient(other)
    gradient(x, 1.0, rng(), answers, read_loss=False)
    for mine, its in zip(other.parameters(), vae.parameters(), strict=True):
        assert mine.grad is not None
        wanted = torch.zeros_like(its) if its.grad is None else its.grad
        torch.testing.assert_close(mine.grad, wanted, rtol=1e-4, atol=1e-5)


def test_dropped_units_have_no_gradient() -> None:
    """With dropout both ways draw the same masks and get the same gradient."""
    shape = Shape(5, 2, (8, 8), "gaussian")
    vae, other = (VAE(shape, dropout=0.5, seed=3) for _ in range(2))
    gradient, x = Gradient(other), torch.rand(1, 9, 5, generator=rng())
    loss(vae, x, 1.0).sum().backward()
    gradient(x, 1.0, rng(), read_loss=False)
    for mine, its in zip(other.parameters(), vae.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_have_no_gradient() -> None:
    """A frozen parameter keeps a zero gradient; other losses add theirs through autograd."""
    vae = VAE(Shape(4, 2, (6,), "gaussian"))
    for parameter in vae.encoder.parameters():
        parameter.requires_grad = False
    gradient, x = Gradient(vae), torch.rand(1, 8, 4, generator=rng())
    gradient(x, 1.0, rng(), read_loss=False)
    assert gradient.flat.grad is not None
    frozen = sum(parameter.numel() for parameter in vae.encoder.parameters())
    assert not gradient.flat.grad[4 : 4 + frozen].any()  # the noise of 4 features comes first
    before = gradient.flat.grad.clone()
    (2.0 * vae.noise).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gradient.flat.grad[:4], before[:4] + 2.0)
    assert torch.equal(gradient.flat.grad[4:], before[4:])
