import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from service.domain.detector import Retraining
from service.domain.detector_config import parse
from service.domain.drift_report import NO_DRIFT, Drift
from service.problems import Conflict, UnknownDetector, Unprocessable
from service.store import detector_state
from service.store.detector_state import from_state
from service.store.detectors import Detectors
from service.store.live_summaries import LiveSummaries, MonitorMemory
from service.store.redis_keys import DETECTORS, NOTIFY, Keys
from tests.service.stored import BAD, Stored, matrix

pytestmark = pytest.mark.anyio


async def test_a_detector_is_made_once(stored):
    """The same config again changes only the time of change; another one adds a revision."""
    created, first = await stored.detectors.put("new", parse({}))
    assert created
    assert (first.champion, first.generation, first.config_revision) == (None, 0, 1)
    assert first.retraining == Retraining("idle", 0.0)
    assert first.drift == NO_DRIFT
    created, again = await stored.detectors.put("new", parse({"strategy": "replay"}))
    assert (created, replace(again, changed=first.changed)) == (False, first)
    created, changed = await stored.detectors.put("new", parse({"threshold": {"fpr": 0.05}}))
    assert not created
    assert (changed.uid, changed.config_revision) == (first.uid, 2)
    assert changed.config.threshold == {"fpr": 0.05}


async def test_of_many_requests_for_one_name_one_creates_the_detector(stored):
    """If many requests create the same detector, one creates it, and the others get its uid."""
    puts = await asyncio.gather(*(stored.detectors.put("new", parse({})) for _ in range(20)))
    assert sum(created for created, _ in puts) == 1
    assert len({detector.uid for _, detector in puts}) == 1


async def test_changes_that_race_are_all_counted(stored):
    """No concurrent change is lost, and the revision counts them."""
    configs = [parse({"seed": seed}) for seed in range(1, 9)]
    await asyncio.gather(*(stored.detectors.put("pump", config) for config in configs))
    assert (await stored.get()).config_revision == 9


async def test_a_config_is_read_back(stored):
    """Every field of a config is read back."""
    config = parse(
        {
            "features": ["a", "b"],
            "weights": {"w_prev": 0.25, "w_new": 0.75},
            "replay": {"latents": "prior", "decode": "mean"},
            "model": {"hidden": [8, 4], "epochs": 3},
            "retrain": {"min_vectors": None, "max_age_seconds": None, "paused": True},
            "gate": "report",
            "keep_learned_seconds": 60,
        }
    )
    await stored.detectors.put("new", config)
    assert (await stored.get("new")).config == config


async def test_an_empty_config_keeps_dimension_and_features(stored):
    """Null means the present dimension and, once trained, the present feature names."""
    await stored.make(features=["a", "b", "c"])
    await stored.learn()
    config = (await stored.detectors.put("pump", parse({"seed": 1})))[1].config
    assert (config.dimension, config.features) == (3, ("a", "b", "c"))


@pytest.mark.parametrize("config", [{"dimension": 4}, {"features": ["a", "b", "d"]}])
async def test_a_trained_detector_keeps_dimension_and_features(stored, config):
    """Another dimension or other features on a trained detector are a conflict."""
    await stored.make(features=["a", "b", "c"])
    await stored.learn()
    before = await stored.get()
    with pytest.raises(Conflict):
        await stored.detectors.put("pump", parse(config))
    assert await stored.get() == before


async def test_an_empty_detector_may_change_its_dimension(stored):
    """An empty detector may change its dimension; buffered vectors fix it."""
    await stored.make(dimension=4)
    assert (await stored.make(dimension=5)).dimension == 5
    assert (await stored.make()).dimension is None
    await stored.buffer.ingest("pump", matrix(1))
    assert (await stored.make()).dimension == 3
    with pytest.raises(Conflict):
        await stored.make(dimension=5)


@pytest.mark.parametrize("name", ["", "a b", "{a}", "x" * 65, "-a", "\ud800"])
async def test_an_invalid_name_is_refused_or_unknown(stored, name):
    """An invalid name is refused at creation and unknown elsewhere; nothing is stored."""
    with pytest.raises(Unprocessable):
        await stored.detectors.put(name, parse({}))
    assert await stored.detectors.get(name) is None
    assert await stored.detectors.poll([name]) == {}
    with pytest.raises(UnknownDetector):
        await stored.detectors.delete(name)


async def test_detectors_are_bounded(stored, redis):
    """One detector too many is a conflict; existing ones can still be changed."""
    tight = Detectors(redis, max_detectors=2)
    await tight.put("second", parse({}))
    with pytest.raises(Conflict, match="at most 2"):
        await tight.put("third", parse({}))
    assert (await tight.put("pump", parse({"seed": 1})))[1].config_revision == 2
    assert await tight.names() == {"pump", "second"}


async def test_detectors_are_listed_by_name(stored, redis):
    """More detectors than one read takes are listed by name, without unfinished ones."""
    for number in range(120):
        await stored.make(f"d{number:03}")
    await redis.sadd(DETECTORS, "d000-unfinished")
    listed = await stored.detectors.list()
    assert [detector.name for detector in listed] == [f"d{n:03}" for n in range(120)] + ["pump"]


async def test_polling_returns_the_pointers_of_existing_detectors(stored):
    """Polling returns the pointers of existing detectors only."""
    await stored.learn()
    before = (await stored.get()).pointer
    assert await stored.detectors.poll(["pump", "other"]) == {"pump": before}
    assert before[1:4] == (1, 1, 1)
    await stored.make(seed=3)
    assert (await stored.detectors.poll(["pump"]))["pump"].config_revision == 2


async def test_every_change_is_announced(stored, redis):
    """Creation, config, promotion, rollback, import and deletion each notify by name."""
    async with redis.pubsub() as subscription:
        await subscription.subscribe(NOTIFY)

        async def next_notification() -> bytes | None:
            for _ in range(2):  # the first may be the subscription itself
                message = await subscription.get_message(
                    ignore_subscribe_messages=True, timeout=0.5
                )
                if message:
                    return message["data"]
            return None

        await stored.make("new")
        assert await next_notification() == b"new"
        await stored.make(seed=1)
        assert await next_notification() == b"pump"
        await stored.learn()
        assert await next_notification() == b"pump"
        await stored.learn(seed=1)
        assert await next_notification() == b"pump"
        await stored.registry.set_champion("pump", 1)
        assert await next_notification() == b"pump"
        await stored.detectors.delete("new")
        assert await next_notification() == b"new"
        await stored.make(seed=1)  # the same config again, in case a process missed the first
        assert await next_notification() == b"pump"
        await stored.registry.set_champion("pump", 1)
        assert await next_notification() == b"pump"


async def test_a_retraining_by_hand_is_queued_before_it_is_answered(stored):
    """After the answer to a request to retrain, the status says queued."""
    await stored.buffer.ingest("pump", matrix(32))
    assert await stored.detectors.request_retrain("pump", {"w_prev": 0.5, "w_new": 0.5}) == 1
    detector = await stored.get()
    assert detector.retraining.state == "queued"
    assert (detector.requested, detector.served) == (1, 0)


async def test_a_retraining_with_too_few_vectors_is_a_conflict(stored):
    """The conflict says how many vectors there are, are needed, and are parked."""
    await stored.learn(40, good=False)
    await stored.buffer.ingest("pump", matrix(31))
    with pytest.raises(Conflict, match=r"31 vectors.*40 more are parked.*32") as caught:
        await stored.detectors.request_retrain("pump")
    assert caught.value.extra == {"buffered": 31, "needed": 32}
    assert (await stored.get()).retraining.state == "idle"
    with pytest.raises(UnknownDetector):
        await stored.detectors.request_retrain("other")


async def test_a_deletion_leaves_the_tombstone_and_the_audit_trail(stored, redis):
    """Artifacts, versions, buffer, leases and drift are deleted; the uid stays for a week."""
    await stored.learn()
    await stored.learn(good=False)
    uid = (await stored.get()).uid
    monitor = await stored.leases.acquire("pump", 30, "monitor")
    await LiveSummaries(redis).save(monitor, MonitorMemory("0-0", b""), Drift("new_regime"))
    await stored.registry.pin("pump", 1)
    await stored.lease()
    await stored.detectors.delete("pump")
    remaining_keys = {Keys("pump").tombstone.encode(), Keys("pump").audit.encode()}
    assert set(await redis.keys("*{pump}*")) == remaining_keys
    assert await stored.detectors.is_deleted("pump", uid)
    assert 0 < await redis.ttl(Keys("pump").tombstone) <= 7 * 24 * 3600
    assert await stored.detectors.names() == set()
    assert await stored.erasure.rewrite_due(0)
    with pytest.raises(UnknownDetector):
        await stored.detectors.delete("pump")


async def test_a_detector_created_again_is_empty(stored):
    """A detector that is created again is empty, and gets nothing meant for the first."""
    await stored.learn()
    old = await stored.get()
    await stored.detectors.delete("pump")
    new = await stored.make()
    assert new.uid != old.uid
    assert (new.champion, new.generation, new.learned, new.buffered) == (None, 0, 0, 0)


async def test_the_list_is_right_during_creations_and_deletions(redis):
    """During creations and deletions an existing detector is always listed."""
    stored = Stored(redis)
    for _ in range(30):
        await stored.make()
        await asyncio.gather(stored.make(), stored.detectors.delete("pump"), stored.make())
        exists = await stored.detectors.get("pump") is not None
        assert not exists or await stored.detectors.names() == {"pump"}


async def test_a_version_promoted_during_a_deletion_is_deleted(stored, redis):
    """A version that is promoted during a deletion is deleted, too."""
    await stored.buffer.ingest("pump", matrix(40))
    lease, experience = await stored.lease(), await stored.take()
    reject = stored.registry.settle(lease, experience, b"late", BAD, seconds=1, promoted=False)
    await asyncio.gather(stored.detectors.delete("pump"), reject, return_exceptions=True)
    assert await redis.keys("*{pump}:artifact*") == []


async def test_a_mute_ends_by_the_clock_of_the_processes(stored: Stored, monkeypatch) -> None:
    """The processes compare a mute's end with their own clock, so they also set it with theirs."""
    monkeypatch.setattr("service.store.detectors.time", SimpleNamespace(time=lambda: 1e9))
    await stored.make()
    assert await stored.detectors.mute("pump", 5.0, "work", "me") == 1e9 + 5
    mute = (await stored.get()).mute
    assert mute is not None
    assert mute.until == 1e9 + 5
    await stored.detectors.mute("pump", 0.0, "", "me")
    assert (await stored.get()).mute is None


def test_detectors_with_one_config_share_it() -> None:
    """Ten thousand detectors with the same config store it once."""
    state = {b"uid": b"u", b"config": b'{"seed": 3}', b"dimension": b"4", b"champion": b""}
    first, other = from_state("one", state, None), from_state("other", state, None)
    wider = from_state("wider", state | {b"dimension": b"5"}, None)
    assert first.config is other.config
    assert (first.config.dimension, wider.config.dimension) == (4, 5)


async def test_a_damaged_state_is_logged_once(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector whose state cannot be read is named once, until it can be read again."""
    monkeypatch.setattr(detector_state, "_left_out", {})
    field = Keys("pump").state
    for _ in range(2):
        await stored.redis.hset(field, "dimension", "x")
        with capture_logs() as logs:
            for _ in range(3):
                assert await stored.detectors.get("pump") is None
        assert [entry["detector"] for entry in logs] == ["pump"]
        assert "'x'" in logs[0]["why"]
        await stored.redis.hset(field, "dimension", 3)
        assert (await stored.get()).dimension == 3


async def test_keys_of_a_wrong_type_leave_the_other_detectors(stored: Stored) -> None:
    """A damaged detector is left out, and one with damaged drift is read without it."""
    for name in ("whole", "undrifted"):
        await stored.make(name)
    for key in (Keys("pump").state, Keys("undrifted").drift):
        await stored.redis.delete(key)
        await stored.redis.rpush(key, "not this type")
    await stored.redis.sadd(DETECTORS, b"\xff\xfe", "not a name")
    detectors = await stored.detectors.list()
    assert [detector.name for detector in detectors] == ["undrifted", "whole"]
    assert detectors[0].drift == NO_DRIFT
    assert (await stored.detectors.poll(["pump", "whole"])).keys() == {"whole"}
    assert await stored.detectors.get("pump") is None
