import json
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from sklearn.metrics import roc_auc_score

from models import (
    Config,
    ConfigError,
    Model,
    Replay,
    TrainingError,
    VectorError,
    Version,
    learn,
    train,
)
from models.arrays import Array
from models.parts.network import Shape
from models.strategies.past import past_of
from models.training.batches import batches
from models.training.likelihood import likelihood_of
from models.training.mixing import best_weight
from models.training.plan import plan
from models.vae.vae import VAE

QUICK = Model(epochs=3)


def test_the_same_seed_data_and_parent_give_the_same_version(first: Version, blob: Array) -> None:
    """The same seed gives the same version bit for bit, through replay; another seed does not."""
    config = Config(model=QUICK)
    a, b = (train(first, blob, config) for _ in range(2))
    assert a.sha256 == b.sha256
    assert train(first, blob, Config(model=QUICK, seed=1)).sha256 != a.sha256


def test_progress_rises_to_one_and_a_training_can_be_stopped(blob: Array) -> None:
    """Progress is reported each step and ends at 1; a closed training stops between steps."""
    fractions = [p.fraction for p in learn(None, blob, Config(model=QUICK))]
    assert fractions == sorted(fractions)
    assert fractions[-2] < 0.9
    assert fractions[-1] == 1.0
    stopped = learn(None, blob, Config(model=QUICK))
    next(stopped)
    stopped.close()
    with pytest.raises(StopIteration):
        next(stopped)


def test_numpy_scores_what_torch_trained() -> None:
    """The serving pass equals the training pass within 1e-5, for random architectures."""
    rng = np.random.default_rng(0)
    for seed in range(12):
        d, hidden = (
            int(rng.integers(1, 60)),
            tuple(map(int, rng.integers(1, 70, rng.integers(1, 4)))),
        )
        likelihood = ("gaussian", "bernoulli")[seed % 2]
        vae = VAE(Shape(d, int(rng.integers(1, 12)), hidden, likelihood), networks=2, seed=seed)
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
            x = torch.rand(2, 9, d)
            mean, _ = vae.encode(x)
            loss = vae.negative_log_likelihood(x, vae.decoder(mean))
        for m in range(2):
            network = vae.network(m)
            features, divergence, _ = network.losses(x[m].numpy())
            np.testing.assert_allclose(features.sum(1), loss[m].numpy(), rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(network.encode(x[m].numpy())[0], mean[m].numpy(), atol=1e-5)
            assert (divergence >= -1e-6).all()


@pytest.mark.thorough  # `make test` shows it in tests/test_examples.py
def test_replay_remembers_what_finetune_forgets(digits: dict[int, Array]) -> None:
    """After a second digit the first is still normal to replay, and is not to finetune."""
    v1 = train(None, digits[1][:120])
    replayed = train(v1, digits[2][:120])
    tuned = train(v1, digits[2][:120], Config(strategy="finetune"))
    assert replayed.is_anomaly(digits[1][120:]).mean() < 0.1
    assert tuned.is_anomaly(digits[1][120:]).mean() > 0.2
    assert replayed.lineage.w_prev == replayed.lineage.w_new == 0.5
    assert len(replayed.kept) == 0


@pytest.mark.parametrize("n", [100, 300])
def test_the_work_of_an_update_does_not_grow(first: Version, blob: Array, n: int) -> None:
    """Each update's steps take as many vectors, within 1 %, however many were learned before."""
    x, taken = first.scaler.transform(blob[:n]), []
    for learned in (300, 600, 9_000, 300_000):
        version = first.with_lineage(learned=learned)
        past = past_of(version, Config())
        chosen = plan(version, past, x, Config(), "gaussian", None)
        steps = islice(batches(chosen, past, x, np.random.default_rng(0)), chosen.steps)
        taken.append(sum(batch.shape[1] for batch, _, _ in steps))
    np.testing.assert_allclose(taken, taken[0], rtol=0.01)


def test_the_lineage_says_where_a_version_comes_from(first: Version, second: Version) -> None:
    """The lineage has parent, counts, weights, seed, loss curve and the gate's evidence."""
    lineage = second.lineage
    assert lineage.parent == first.sha256
    assert (lineage.n_prev, lineage.n_new, lineage.learned) == (400, 400, 800)
    assert lineage.experiences == 2
    assert lineage.training.loss[-1] < lineage.training.loss[0]
    assert set(lineage.evidence.old.to_dict()) == {"champion", "candidate"}


def test_a_weight_for_one_run_replaces_the_configs(first: Version, blob: Array) -> None:
    """Weights that `retrain` gets replace the config's for one run."""
    version = train(first, blob, Config(model=QUICK), weights={"w_prev": 0.1, "w_new": 0.9})
    assert version.lineage.w_new == 0.9


def test_joint_keeps_every_vector_and_counts_the_bytes(blob: Array) -> None:
    """Joint training keeps all vectors: `bytes_kept` grows, and for replay it stays 0."""
    config = Config(strategy="joint", model=QUICK)
    v2 = train(train(None, blob, config), blob[:100], config)
    assert len(v2.kept) == 500
    assert v2.lineage.bytes_kept == 500 * 6 * 4
    assert v2.lineage.w_new == pytest.approx(0.2)


@pytest.mark.parametrize("replay", [Replay("prior", "mean"), Replay("prior", "sample")])
def test_prior_latents_and_decoder_means_can_be_configured(first: Version, replay: Replay) -> None:
    """N(0, I) latents and decoder means give other draws from the same generator."""
    literal = first.with_config(Config(dimension=6, replay=replay))
    assert not np.array_equal(literal.sample(10, 0), first.sample(10, 0))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda X: np.hstack([X, np.full((len(X), 1), 7.0)]),
        lambda X: np.sinh(3 * (X - X.mean(0)) / X.std(0)),
        lambda X: X * np.logspace(-30, 30, X.shape[1]),
        lambda X: np.repeat(X[:1], 100, axis=0),
        lambda X: (X > 0).astype(float),
    ],
    ids=["constant column", "heavy tails", "wild units", "one vector", "binary"],
)
def test_defaults_hold_the_rate_on_other_data(blob: Array, spoil) -> None:
    """With all defaults scores are finite, and fresh normals alarm at about the asked rate."""
    X = spoil(blob.astype(np.float64)).astype(np.float32)
    half = len(X) // 2
    version = train(None, X[:half], Config(threshold={"fpr": 0.05}))
    judged = version.judge(X[half:])
    assert np.isfinite(judged.scores).all()
    assert judged.is_anomaly.mean() < 0.15


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: 255.0 * x,
        lambda x: 255.0 - 255.0 * x,
        lambda x: (x - x.mean()) / x.std(),
        lambda x: x > 0.5,
        lambda x: x <= 0.5,
    ],
    ids=["as they are", "bytes", "inverted", "standardised", "binary", "inverted binary"],
)
@pytest.mark.parametrize("digit", range(10))
def test_pictures_are_known_in_any_unit(
    digits: dict[int, Array], digit: int, form: Callable[[Array], Array]
) -> None:
    """One digit's pictures are told from other vectors, whatever the unit of their pixels."""
    pictures = zoom(digits[digit][:40].reshape(40, 8, 8), (1, 2, 2), order=1)  # 16 x 16 pixels
    x = form(pictures.reshape(40, 256) / 16.0).astype(np.float32)
    assert likelihood_of(x, Config()) == "bernoulli"
    shuffled = x[:, np.random.default_rng(0).permutation(x.shape[1])]
    assert likelihood_of(shuffled, Config()) == "gaussian"


def test_a_shape_declares_small_pictures(digits: dict[int, Array]) -> None:
    """Pictures of 36 pixels are known by their shape, but not temperatures or counts in a grid."""
    small = Config(shape=(6, 6))
    pictures = (digits[3].reshape(-1, 8, 8)[:, 1:7, 1:7].reshape(-1, 36) / 16).astype(np.float32)
    assert likelihood_of(pictures, Config()) == "gaussian"
    assert likelihood_of(pictures, small) == "bernoulli"
    rng = np.random.default_rng(0)
    warm = rng.normal(300.0, 5.0, size=(200, 36)).astype(np.float32)
    counts = (rng.lognormal(2.0, 1.5, size=(200, 36)) * (rng.random((200, 36)) > 0.3)).astype(int)
    assert likelihood_of(warm, small) == likelihood_of(counts, small) == "gaussian"


def test_a_shape_is_kept_and_checked() -> None:
    """A shape gives the dimension, survives JSON, and must fit the vectors."""
    config = Config(shape=(7, 5))
    assert config.dimension == 35
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="7 by 5 are 35 pixels, not 34"):
        Config(shape=(7, 5), dimension=34)
    with pytest.raises(ConfigError, match="and at least one"):
        Config(shape=(0, 5))


def test_metrics_in_groups_are_no_pictures() -> None:
    """Metrics between 0 and 1, often 0, may be like those beside them, but not like those below."""
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(500, 9)), 8, axis=1)
    x = np.clip(0.4 * groups + 0.1 * rng.normal(size=(500, 72)), 0.0, 1.0).astype(np.float32)
    assert likelihood_of(x, Config()) == "gaussian"


def test_the_columns_of_a_category_are_no_pictures() -> None:
    """Ones and zeros for the values of a category have neighbours, but these exclude each other."""
    values = np.random.default_rng(0).integers(20, size=(400, 3))
    x = (values[:, :, None] == np.arange(20)).reshape(400, 60).astype(np.float32)
    assert likelihood_of(x, Config()) == "gaussian"


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_pictures_get_a_bernoulli_decoder(digits: dict[int, Array], scale: float) -> None:
    """Pictures in [0, 1] or 0..255 get a Bernoulli decoder, and another digit alarms."""
    ones = digits[1] * (scale / 16)
    version = train(None, ones[:130], Config(model=Model(epochs=60)))
    assert version.network.shape.likelihood == "bernoulli"
    zeros = digits[0] * (scale / 16)
    scores = version.score(np.concatenate([ones[130:], zeros]))
    truth = np.r_[np.zeros(len(ones) - 130), np.ones(len(zeros))]
    assert roc_auc_score(truth, scores) > 0.95


def test_too_few_or_misshapen_vectors_are_refused(first: Version, blob: Array) -> None:
    """Fewer than 32 vectors are refused, and so is another dimension than the version's."""
    with pytest.raises(VectorError, match="31 normals"):
        train(None, blob[:31])
    with pytest.raises(VectorError, match="5 columns, not 6"):
        train(first, blob[:, :5])


def test_a_diverging_training_raises_training_error(blob: Array) -> None:
    """A much too high learning rate raises TrainingError, and never gives NaN weights."""
    config = Config(model=Model(learning_rate=0.99, epochs=40, hidden=(64, 64, 64)))
    try:
        version = train(None, blob, config)
    except TrainingError:
        return
    assert np.isfinite(version.score(blob)).all()


def test_auto_weights_record_their_probes(first: Version, blob: Array) -> None:
    """`auto` records its probes with their losses on old and new, and takes the best one."""
    version = train(first, blob + 3 * blob.std(axis=0), Config(weights="auto", model=QUICK))
    probes = version.lineage.probes
    assert [probe["w_new"] for probe in probes] == [0.5, 0.2, 0.8]
    assert version.lineage.w_new == best_weight(probes, len(blob), len(blob))
    assert all(np.isfinite(list(probe.values())).all() for probe in probes)
    assert train(None, blob, Config(weights="auto", model=QUICK)).lineage.probes == ()
