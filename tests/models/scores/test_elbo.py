"""The fast sums of the scores equal the plain ones of the network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.parts.calibration import representable
from models.parts.network import Network, Shape
from models.scores.by_name import score_rows
from models.scores.elbo import Scorer, row_blocks
from models.vae.vae import VAE


def network(likelihood: str, d: int, hidden: tuple[int, ...], latent: int) -> Network:
    """Return a network with random weights."""
    shape = Shape(dimension=d, latent=latent, hidden=hidden, likelihood=likelihood)
    rng = np.random.default_rng(d)
    tensors = {
        name: (rng.normal(size=size) / np.sqrt(size[0])).astype(np.float32)
        for name, size in shape.tensors().items()
    }
    return Network(shape, tensors)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize(
    ("d", "hidden", "latent"), [(1, (3,), 1), (32, (64, 32), 8), (70, (), 20), (300, (40,), 5)]
)
def test_a_score_is_the_sum_of_its_parts(
    likelihood: str, d: int, hidden: tuple[int, ...], latent: int
) -> None:
    """For each architecture and number of rows the score equals the sum of its parts."""
    made = network(likelihood, d, hidden, latent)
    x = np.random.default_rng(1).uniform(size=(999, d)).astype(np.float32)
    features, divergence, _ = made.losses(x)
    plain = {"reconstruction": features.sum(axis=1)}
    plain["elbo"] = plain["reconstruction"] + divergence
    for kind, expected in plain.items():
        for n in (0, 1, 2, 999):
            np.testing.assert_allclose(
                score_rows(Scorer(kind, made), x[:n]),
                representable(expected[:n]),
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 3), (5000, 3), (5000, 32), (200, 5000)])
def test_blocks_cover_every_row_once(n: int, d: int) -> None:
    """Blocks cover every row once, in order."""
    rows = [row for block in row_blocks(n, d) for row in range(n)[block]]
    assert rows == list(range(n))


@settings(max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 12),
    st.lists(st.integers(1, 70), max_size=3),
    st.sampled_from(["gaussian", "bernoulli"]),
    st.integers(0, 1000),
)
def test_numpy_and_torch_compute_the_same_score(
    d: int, latent: int, hidden: list[int], likelihood: str, seed: int
) -> None:
    """For each architecture numpy and torch agree on the score to five digits."""
    vae = VAE(Shape(d, latent, tuple(hidden), likelihood), seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
        x = torch.rand(1, 20, d, generator=rng)
        expected = vae(x, torch.zeros(1, 20, latent))[0].double().numpy()
    scores = Scorer("elbo", vae.network(0))(x[0].numpy())
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["elbo", "reconstruction"])
@pytest.mark.parametrize(("d", "hidden", "latent"), [(1, (3,), 1), (32, (64, 32), 8), (70, (), 20)])
def test_a_vector_alone_scores_as_a_matrix_of_one_row(
    kind: str, d: int, hidden: tuple[int, ...], latent: int
) -> None:
    """A vector alone scores as a matrix of one row, bit for bit."""
    score = Scorer(kind, network("gaussian", d, hidden, latent))
    x = np.random.default_rng(1).normal(size=(50, d)).astype(np.float32)
    np.testing.assert_array_equal(
        [score.of_one(row) for row in x], [score(row[None])[0] for row in x]
    )
