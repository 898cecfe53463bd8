import pytest

from service.domain.detector import Retraining, Retrains
from service.store.lua import Fenced
from service.store.retrainings import TrainingProgress
from tests.service.stored import GOOD, matrix

pytestmark = pytest.mark.anyio


async def test_a_run_is_queued_then_running_then_idle(stored):
    """A run reports its progress, and at its end the request counts as served."""
    await stored.buffer.ingest("pump", matrix(40))
    await stored.detectors.request_retrain("pump", "equal")
    lease = await stored.lease()
    assert await stored.retrainings.start(lease) == ("equal", 0, "", 0)
    await stored.retrainings.progress(lease, TrainingProgress(0.25, 12.5, 3.0, -1.5))
    assert (await stored.get()).retraining == Retraining("running", 0.25, 12.5, 3.0, -1.5)
    await stored.registry.settle(lease, await stored.take(), b"a", GOOD, seconds=4.1)
    detector = await stored.get()
    assert (detector.retraining, detector.served) == (Retraining("idle", 0.0), 1)
    last = detector.last_retraining
    assert last.finished_at.endswith("Z")
    assert (last.outcome, last.version, last.reasons, last.seconds) == ("promoted", 1, (), 4.1)


async def test_weights_hold_for_one_run_its_retries_included(stored):
    """The weights survive a failed attempt and a crash; the next run does not have them."""
    await stored.buffer.ingest("pump", matrix(40))
    weights = {"w_prev": 0.2, "w_new": 0.8}
    await stored.detectors.request_retrain("pump", weights)
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    assert await stored.retrainings.attempt_failed(lease) == 1
    detector = await stored.get()
    assert (detector.retraining.state, detector.served, detector.attempts) == ("queued", 0, 1)
    assert await stored.retrainings.start(lease) == (weights, 1, "", 0)
    await stored.leases.release(lease)  # a crash, as the store sees it
    assert (await stored.get()).retraining.state == "running"
    lease = await stored.lease()
    assert await stored.retrainings.start(lease) == (weights, 1, "", 1)
    await stored.registry.settle(lease, await stored.take(), b"a", GOOD, seconds=1)
    await stored.buffer.ingest("pump", matrix(40))
    assert await stored.retrainings.start(lease) == (None, 0, "", 0)


async def test_only_runs_that_end_with_their_worker_are_interrupted(stored):
    """Crashes in a row are counted until an outcome; a run that its worker gave up is not one."""
    await stored.ask_to_retrain()
    lease = await stored.lease()
    started = [(await stored.retrainings.start(lease)).interrupted for _ in range(3)]
    assert started == [0, 1, 2]
    await stored.retrainings.give_up(lease)
    detector = await stored.get()
    assert (detector.retraining.state, detector.interrupted) == ("queued", 2)
    assert (await stored.retrainings.start(lease)).interrupted == 0
    await stored.registry.settle(lease, await stored.take(), b"a", GOOD, seconds=1)
    await stored.retrainings.give_up(lease)
    detector = await stored.get()
    assert (detector.retraining.state, detector.interrupted) == ("idle", 0)


@pytest.mark.parametrize(("left", "state", "served"), [(32, "queued", 1), (31, "idle", 2)])
async def test_a_request_during_a_run_is_served_by_one_more(stored, left, state, served):
    """A request during a run is served by one more run, if enough vectors are left."""
    await stored.ask_to_retrain()
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    experience = await stored.take()
    await stored.buffer.ingest("pump", matrix(left))
    assert await stored.detectors.request_retrain("pump", "equal") == 2
    assert (await stored.get()).retraining.state == "running"
    await stored.registry.settle(lease, experience, b"a", GOOD, seconds=1)
    detector = await stored.get()
    assert (detector.retraining.state, detector.served) == (state, served)
    assert (await stored.retrainings.start(lease)).weights == ("equal" if left == 32 else None)


async def test_a_run_with_nothing_to_learn_ends_without_an_outcome(stored):
    """A run without data ends without an outcome, so that nobody waits."""
    await stored.ask_to_retrain()
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    await stored.retrainings.stand_down(lease)
    detector = await stored.get()
    fields = (detector.retraining.state, detector.served, detector.last_retraining)
    assert fields == ("idle", 1, None)


async def test_a_parked_experience_ends_the_run_as_failed(stored):
    """The reason of a parked experience is kept, and later data is learned."""
    await stored.buffer.ingest("pump", matrix(40))
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    await stored.retrainings.attempt_failed(lease)
    experience = await stored.take()
    await stored.buffer.ingest("pump", matrix(33))
    entry = await stored.registry.park(lease, experience, 'a "NaN" loss', seconds=2)
    detector = await stored.get()
    counts = (detector.buffered, detector.parked, detector.attempts, detector.last_version)
    assert counts == (33, 40, 0, 0)
    assert detector.last_retraining.outcome == "failed"
    assert detector.last_retraining.version is None
    assert detector.last_retraining.reasons == ('a "NaN" loss',)
    assert detector.retrains == Retrains(failed=1)
    (listed,) = await stored.quarantine.list("pump")
    assert (listed.id, listed.vectors, listed.reason) == (entry, 40, 'a "NaN" loss')
    assert (await stored.take()).n == 33


async def test_without_the_lease_nothing_changes(stored):
    """Without the lease nothing changes, not even the progress."""
    lease = await stored.lease()
    await stored.leases.release(lease)
    for step in (
        stored.retrainings.start(lease),
        stored.retrainings.progress(lease, TrainingProgress(0.5)),
        stored.retrainings.attempt_failed(lease),
        stored.retrainings.stand_down(lease),
    ):
        with pytest.raises(Fenced):
            await step
    assert (await stored.get()).retraining.state == "idle"
