import numpy as np
import pytest

from models import ArtifactError, Config, VectorError, Version
from models.arrays import Array


def test_an_artifact_gives_back_the_same_version(second: Version, blob: Array) -> None:
    """An artifact that is read back has the same scores and the same digest."""
    loaded = Version.from_bytes(second.to_bytes())
    assert loaded.to_bytes() == second.to_bytes()
    assert loaded.sha256 == second.sha256
    np.testing.assert_array_equal(loaded.score(blob), second.score(blob))
    assert loaded.lineage == second.lineage


def test_each_figure_of_a_judgement_has_a_method(second: Version, blob: Array) -> None:
    """The methods that README names return what `judge` returns."""
    judged = second.judge(blob)
    np.testing.assert_array_equal(second.score(blob), judged.scores)
    np.testing.assert_array_equal(second.p_values(blob), judged.p_values)
    np.testing.assert_array_equal(second.severities(blob), judged.severities)
    np.testing.assert_array_equal(second.is_anomaly(blob), judged.is_anomaly)


def test_a_saved_version_can_be_loaded(first: Version, tmp_path) -> None:
    """`save` and `load` make the same checks as `to_bytes` and `from_bytes`."""
    first.save(tmp_path / "v1.safetensors")
    assert Version.load(tmp_path / "v1.safetensors").threshold == first.threshold


def test_every_flipped_bit_is_noticed(first: Version) -> None:
    """500 random flips anywhere in the artifact, 500 refusals."""
    data = first.to_bytes()
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(ArtifactError):
            Version.from_bytes(bytes(damaged))


@pytest.mark.parametrize(
    "head",
    [
        b"{%b}" % b",".join([b'"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'] * 10_001),
        b'{"__metadata__":{"anamnesis":"[%b]"}}' % b",".join([b"{}"] * 1_000_001),
    ],
    ids=["tensors", "entries"],
)
def test_an_artifact_of_too_many_entries_is_not_parsed(head: bytes) -> None:
    """A parser would make an object for each tensor and each entry of the description."""
    with pytest.raises(ArtifactError, match="more tensors or entries than any version"):
        Version.from_bytes(len(head).to_bytes(8, "little") + head)


def test_a_lineage_of_megabytes_is_refused(first: Version) -> None:
    """Each field of such a lineage is valid, but records and lists of versions would repeat it."""
    probes = ({"w_new": 0.5, "old": 1.0, "new": 1.0},) * 40_000
    data = first.with_lineage(probes=probes).to_bytes()
    with pytest.raises(ArtifactError, match="lineage: more than 1048576 bytes"):
        Version.from_bytes(data)


def test_a_cut_or_foreign_artifact_is_refused(first: Version) -> None:
    """An empty, random, cut or extended artifact is refused."""
    data = first.to_bytes()
    for wrong in (b"", b"{}", bytes(100), data[:-1], data[: len(data) // 2], data + b"x"):
        with pytest.raises(ArtifactError):
            Version.from_bytes(wrong)
    with pytest.raises(ArtifactError, match="more than"):
        Version.from_bytes(data, max_bytes=100)


def test_scores_verdicts_and_severities_agree(first: Version, blob: Array) -> None:
    """The verdict is `score >= threshold`, and equals p <= alpha and severity >= 1."""
    X = np.concatenate([blob, blob * 3])
    judged = first.judge(X)
    np.testing.assert_array_equal(judged.is_anomaly, judged.scores >= first.threshold)
    np.testing.assert_array_equal(judged.is_anomaly, judged.p_values <= 0.01)
    np.testing.assert_array_equal(judged.is_anomaly, judged.severities >= 1)
    np.testing.assert_array_equal(judged.scores, judged.scores.astype(np.float32))
    np.testing.assert_array_equal(judged.p_values, first.p_values(X))


def test_the_widest_vectors_get_finite_answers(first: Version) -> None:
    """The largest float32 values are anomalies with finite answers."""
    judged = first.judge(np.full((2, 6), [[3.4e38], [-3.4e38]], np.float32))
    assert all(np.isfinite(column).all() for column in judged)
    assert judged.is_anomaly.all()


def test_a_threshold_can_be_changed_without_retraining(first: Version, blob: Array) -> None:
    """A larger asked rate lowers the threshold; the scores stay."""
    lax = first.threshold_for({"fpr": 0.1})
    assert lax.value < first.threshold
    judged = first.judge(blob, lax)
    np.testing.assert_array_equal(judged.scores, first.score(blob))
    assert judged.is_anomaly.sum() > first.is_anomaly(blob).sum()


def test_an_explanation_names_the_feature_that_broke(first: Version, blob: Array) -> None:
    """Contributions are ordered from the largest, with the value and the expected value."""
    X = blob[:20].copy()
    X[:, 3] += 30 * blob[:, 3].std()
    for row, largest in zip(X, first.explain(X, 2), strict=True):
        assert largest[0].feature == "d"
        assert largest[0].contribution > largest[1].contribution
        assert largest[0].value == row[3]
        assert largest[0].expected < row[3]


def test_draws_have_the_means_and_deviations_of_the_data(first: Version, blob: Array) -> None:
    """The same seed gives the same draw, with the data's means and deviations."""
    sample = first.sample(2000, seed=1)
    np.testing.assert_array_equal(sample, first.sample(2000, seed=1))
    np.testing.assert_allclose(sample.mean(0), blob.mean(0), atol=0.25 * blob.std(0).max())
    ratio = sample.std(0) / blob.std(0)
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()


@pytest.mark.parametrize("X", [np.zeros((2, 5)), np.zeros(6), np.full((1, 6), np.nan)])
def test_vectors_of_another_shape_are_refused(first: Version, X: np.ndarray) -> None:
    """A wrong dimension, no matrix, or a value that is not finite is refused with a message."""
    for ask in (first.score, first.judge):
        with pytest.raises(VectorError, match="vectors:"):
            ask(X)


def test_a_judgement_does_not_depend_on_its_neighbours(first: Version, blob: Array) -> None:
    """A row is judged alone as in a batch, within float32's rounding, however far out it is."""
    far = [blob[:1] + f * blob.std(axis=0) for f in (10, 1e3, 1e30)]
    X = np.concatenate([blob[:50], *far]).astype(np.float32)
    together = first.judge(X)
    assert together.is_anomaly[-3:].all()
    alone = [first.judge(row[None]) for row in X]
    # A processor may round the products of one row and of a matrix differently.
    np.testing.assert_allclose(
        [judgement.scores for judgement in alone], [first.score(row[None]) for row in X], rtol=1e-5
    )
    of_list = first.judge(X[:1].tolist()).scores  # type: ignore[arg-type]
    np.testing.assert_allclose(of_list, alone[0].scores, rtol=1e-5)
    for column, values in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(np.concatenate(values), column, rtol=1e-5, atol=1e-4)


def test_reconstruction_leaves_the_divergence_out(first: Version, blob: Array) -> None:
    """The ELBO adds a divergence to the reconstruction, which is never negative."""
    scores = [
        first.with_config(Config(score=name, dimension=6)).score(blob)
        for name in ("reconstruction", "elbo")
    ]
    assert (scores[0] <= scores[1]).all()
