"""Categories: words to codes, codes to slots, and versions with numbers and categories."""

import numpy as np
import pytest

from models import Config, Model, VectorError, Version, train
from models.categories import MOST_SLOTS, OPEN, Slots, code_of
from models.columns import Column
from models.parts.network import Network, Shape
from models.scores.elbo import Scorer
from models.vae.vae import VAE
from tests.models.test_columns import Frame

COLUMNS = (Column("speed"), Column("status", "category"), Column("flow"))
RNG = np.random.default_rng(0)


def frame(n: int, *, seed: int = 0, words=("run", "idle")) -> Frame:
    """Return rows in which the speed depends on the status."""
    rng = np.random.default_rng(seed)
    status = rng.choice(len(words), n)
    speed = 50.0 * (status == 0) + rng.normal(size=n)
    return Frame(
        speed=speed, status=[words[s] for s in status], flow=0.1 * speed + rng.normal(size=n)
    )


def config(kind: str, **more) -> Config:
    """Return a config for the frame whose network learns in half a second."""
    if kind == "vae":
        more |= {"score": "elbo", "model": Model(hidden=(16,), epochs=60)}
    return Config(columns=COLUMNS, kind=kind, **more)


@pytest.fixture(scope="module", params=["vae", "mahalanobis"])
def version(request):
    """Return a version that learned the frame."""
    return train(None, frame(500), config(request.param))


def test_slots_are_mapped_back_to_their_values():
    """Slots and numbers are mapped back to the values; a missing value is NaN in all its slots."""
    a, b, c = map(code_of, "abc")
    X = np.float32([[1, a, 5], [2, a, 6], [3, b, np.nan]])
    slots = Slots.fit(X, (1,))
    assert (slots.counts, slots.codes.tolist()) == ((4,), [a, b, OPEN, OPEN])
    assert slots.owners.tolist() == [0, 2, 1, 1, 1, 1]
    encoded = slots.encode(np.float32([[1, b, 5], [1, c, 5], [1, np.nan, 5]]))
    assert encoded[:2, 2:].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert np.isnan(encoded[2, 2:]).all()
    assert np.array_equal(slots.decode(slots.encode(X)), X, equal_nan=True)
    # the open slot stands for no value
    valid = slots.valid(np.float32([[1, 5, 0.2, 0.3, 0.1, 0.9]]))
    assert slots.decode(valid).tolist() == [[1, b, 5]]


def test_a_new_value_takes_a_free_slot():
    """A new value takes a free slot, or else the open slot, and moves no other value."""
    a, b, c, d = map(code_of, "abcd")
    slots = Slots.fit(np.float32([[a], [b]]), (0,))
    more = slots.with_new_values(np.float32([[c], [c], [d]]))
    assert (more.counts, more.codes.tolist()) == (slots.counts, [a, b, c, OPEN])
    assert more.encode(np.float32([[d]])).tolist() == [[0, 0, 0, 1]]


def test_of_many_values_the_commonest_have_slots():
    """The most frequent values have slots; the others that were seen twice share the last of them.

    A value that was seen once, or never, has the open slot.
    """
    codes = np.float32([[code_of(str(i % 300))] for i in range(600)] + [[code_of("once")]])
    slots = Slots.fit(codes, (0,))
    assert slots.counts == (MOST_SLOTS,)
    assert np.count_nonzero(slots.codes) == MOST_SLOTS - 1
    slot_of = slots.encode(codes).argmax(axis=1)
    assert (slot_of[:600] < MOST_SLOTS - 1).all()
    assert (slot_of[:300] == MOST_SLOTS - 2).sum() == 46
    unseen = np.float32([[code_of("once")], [code_of("new")]])
    assert slots.encode(unseen).argmax(axis=1).tolist() == [MOST_SLOTS - 1] * 2
    assert slots.with_new_values(unseen[[1, 1]]).encode(unseen)[1, -2] == 1


def test_an_unseen_word_alarms_among_more_words_than_slots():
    """Of 300 words each is usual, also after saving and loading, and an unseen one alarms."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in rng.permutation(3_000) % 300]
    columns = (Column("speed"), Column("unit", "category"))
    config = Config(columns=columns, model=Model(epochs=5, hidden=(16, 16)))
    version = train(None, Frame(speed=rng.normal(size=3_000), unit=words), config)
    loaded = Version.from_bytes(version.to_bytes())
    known = Frame(speed=rng.normal(size=300), unit=[f"w{i}" for i in range(300)])
    assert loaded.is_anomaly(known).mean() < 0.04
    assert np.array_equal(loaded.score(known), version.score(known))
    assert loaded.is_anomaly(Frame(speed=[0.0, 0.5], unit=["new", "W7"])).all()


def test_the_dimension_is_the_number_of_columns(version):
    """A category counts as one feature."""
    assert version.dimension == 3
    assert version.features == ("speed", "status", "flow")
    assert version.sample(5, seed=0).shape == (5, 3)


def test_a_common_word_at_the_wrong_speed_alarms(version):
    """A common word at the wrong speed alarms, and the explanation names the expected word."""
    assert version.is_anomaly(frame(500, seed=1)).mean() < 0.05
    wrong = Frame(speed=[50.0], status=["idle"], flow=[5.0])
    assert version.is_anomaly(wrong).all()
    first = version.explain(wrong, 1)[0][0]
    assert (first.feature, first.value, first.expected) == ("status", "idle", "run")


def test_an_unknown_word_alarms_without_an_error(version):
    """An unknown word alarms without an error; its column is named, and the word if it is known."""
    odd = Frame(speed=[50.0], status=["jammed"], flow=[5.0])
    assert version.is_anomaly(odd).all()
    assert version.explain(odd, 1)[0][0][2:] == ("unknown", "run")
    attribution = version.explain(odd, 1, {code_of("jammed"): "jammed"}.get)[0][0]
    assert (attribution.feature, attribution.value) == ("status", "jammed")


def test_replay_draws_words_that_were_learned(version):
    """Replay draws only learned words, with their frequencies."""
    words = [row[1] for row in version.rows_with_words(version.sample(1000, seed=1))]
    assert set(words) == {"run", "idle"}
    assert 0.35 < words.count("run") / 1000 < 0.65


def test_words_are_read_back_from_the_artifact(version):
    """A version that is read back scores the same and knows the words."""
    loaded = Version.from_bytes(version.to_bytes())
    assert np.array_equal(loaded.score(frame(50)), version.score(frame(50)))
    assert loaded.words == version.words
    assert loaded.dimension == 3


def test_the_next_version_learns_new_words_and_keeps_the_old(version):
    """A new word is normal after it was learned; a word that is still unknown is not."""
    later = train(version, frame(500, seed=2, words=("run", "rinse")), version.config)
    assert later.is_anomaly(frame(300, seed=3)).mean() < 0.06
    assert later.is_anomaly(frame(300, seed=4, words=("run", "rinse"))).mean() < 0.06
    assert later.is_anomaly(frame(50, seed=5, words=("jammed",))).all()
    assert {"run", "idle", "rinse"} == set(later.words["status"].values())
    Version.from_bytes(later.to_bytes())


def test_a_missing_word_is_filled_in_from_the_other_columns():
    """With `missing: impute` a missing word is filled in, in training and in scoring."""
    gappy = frame(500)
    gappy["status"][::7] = [None] * 72
    version = train(None, gappy, config("mahalanobis", missing="impute"))
    hidden = Frame(speed=[50.0, 0.0], status=[None, float("nan")], flow=[5.0, 0.0])
    assert [row[1] for row in version.rows_with_words(version.filled(hidden))] == ["run", "idle"]
    assert not version.is_anomaly(hidden).any()


def test_a_cell_that_is_no_word_is_named():
    """The error names the row and column of a wrong cell, and what to do about words."""
    with pytest.raises(VectorError, match='row 1, column "status" is not a word'):
        train(None, Frame(speed=[0.0] * 40, status=["a", 0.5] * 20, flow=[0.0] * 40), config("vae"))
    with pytest.raises(VectorError, match='column "status" does not hold numbers'):
        train(None, frame(40))


def test_the_fast_score_is_the_sum_of_its_terms():
    """The fast score equals the sum of its terms for numbers, categories and codes."""
    shape = Shape(9, 2, (8,), "gaussian", categories=(3, 2))
    network = VAE(shape, seed=1).network(0)
    network = Network(shape, {name: tensor + 0.3 for name, tensor in network.tensors.items()})
    x = RNG.normal(size=(30, 9)).astype(np.float32)
    for block in shape.slot_slices:
        x[:, block] = np.eye(block.stop - block.start)[
            RNG.integers(block.stop - block.start, size=30)
        ]
    features, divergence, decoded = network.losses(x)
    np.testing.assert_allclose(
        Scorer("elbo", network)(x), features.sum(axis=1) + divergence, rtol=1e-5
    )
    for block in shape.slot_slices:
        np.testing.assert_allclose(decoded[:, block].sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(network.sample(x[:, :2], RNG)[:, block].sum(axis=1), 1.0)
