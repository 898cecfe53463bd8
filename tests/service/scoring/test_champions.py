"""The loaded champions."""

from dataclasses import replace

import pytest

from service.domain.champion import LoadedVersion
from service.problems import NoVersion, UnknownDetector
from service.scoring.champions import Champions
from tests.service.stored import Stored
from tests.service.trained import champion, versions

pytestmark = pytest.mark.anyio


def test_an_older_generation_never_replaces_a_newer_one() -> None:
    """An older generation or config never replaces a newer one of the same detector."""
    champions = Champions(2)
    assert champions.install(champion(2))
    assert not champions.install(champion(1))
    assert champions.serving("pump").number == 2
    assert champions.install(champion(2, config_revision=2))
    assert not champions.install(champion(2, config_revision=1))
    assert champions.install(champion(1, uid="another"))
    assert champions.serving("pump").number == 1


async def test_unknown_and_untrained_detectors_have_different_errors(stored: Stored) -> None:
    """An unknown name and a detector without a version give different errors."""
    champions = Champions(2)
    with pytest.raises(UnknownDetector):
        champions.serving("pump")
    champions.note(detector := await stored.make())
    with pytest.raises(NoVersion) as caught:
        champions.serving("pump")
    assert caught.value.extra == {"buffered": 0, "needed": 1000}
    champions.note(replace(detector, champion=1, generation=1))
    with pytest.raises(NoVersion, match="The champion, version 1, is not loaded yet"):
        champions.serving("pump")


async def test_the_least_recently_used_pin_is_unloaded(stored: Stored) -> None:
    """If there are too many pins, the one that was not used for longest is unloaded."""
    champions, detector = Champions(2), await stored.make()
    champions.note(detector)
    for number in (1, 2):
        champions.pin(detector, number, LoadedVersion(versions()[0]))
    assert champions.pinned("pump", 1)
    champions.pin(detector, 3, LoadedVersion(versions()[0]))
    assert champions.pinned("pump", 2) is None
    assert champions.pinned("pump", 1)
    assert champions.pinned("pump", 3)


async def test_pins_use_the_present_policy_and_generation(stored: Stored) -> None:
    """A pinned version uses the present policy and answers with the present generation."""
    champions, detector = Champions(2), await stored.make()
    champions.note(detector)
    before = champions.pin(detector, 1, LoadedVersion(versions()[0]))
    assert (before.generation, before.config_revision) == (0, 1)
    champions.note(await stored.make(threshold={"value": 7.0}))
    champions.install(champion(2, uid=detector.uid, config_revision=2))
    after = champions.pinned("pump", 1)
    assert after is not None
    assert (after.generation, after.config_revision, after.threshold.value) == (2, 2, 7.0)
    assert champions.pinned("pump", 2) is champions.serving("pump")


async def test_nothing_of_a_deleted_detector_stays_in_memory(stored: Stored) -> None:
    """Nothing of a deleted detector stays in memory."""
    champions, detector = Champions(2), await stored.make()
    champions.note(detector)
    champions.pin(detector, 1, LoadedVersion(versions()[0]))
    champions.install(champion(2, uid=detector.uid))
    champions.forget("pump")
    assert champions.get("pump") is None
    assert champions.pinned("pump", 1) is None
    assert champions.detectors() == []
