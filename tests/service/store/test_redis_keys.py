import pytest

from service.problems import UnknownDetector
from service.store.redis_keys import Keys


def test_all_keys_of_a_detector_share_its_hash_tag():
    """A cluster stores all keys of a detector in one slot."""
    keys = Keys("pump-7")
    everything = (
        *keys.deleted_with_detector,
        keys.tombstone,
        keys.artifact("ab"),
        keys.idempotency("k"),
    )
    assert all(key.startswith("anamnesis:{pump-7}:") for key in everything)
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("name", ["", "a{b}", "a b", "-a", "a" * 65, "a\n", "\ud800", "ä"])
def test_a_name_that_no_detector_can_have_is_unknown(name):
    """A name cannot contain characters that would reach other keys."""
    with pytest.raises(UnknownDetector):
        Keys(name)


def test_any_idempotency_key_gives_one_short_store_key():
    """An idempotency key of any length and content gives one short key."""
    keys = Keys("a")
    assert len(keys.idempotency("x" * 10_000)) < 120
    assert keys.idempotency("\ud800") != keys.idempotency("\ud801")
