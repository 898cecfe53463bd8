"""The worker, tick by tick, on a real store; the trainer is real where its result matters."""

import asyncio
import random
import time
from contextlib import asynccontextmanager
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from models import Config, TrainingError, Version, train
from models.parts.labels import Labels
from service.domain.champion import Champion
from service.domain.detector import Retraining
from service.domain.event import Label
from service.domain.experience import Experience
from service.pacing import LONGEST
from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.scoring.core import Judged
from service.settings import Settings
from service.store import durability
from service.store.adapters import Stores
from service.store.buffer import Buffer
from service.store.connection import WeakStore, check_durability
from service.store.due_index import Work
from service.store.labels import LabelStore
from service.store.lua import Fenced
from service.store.redis_keys import NOTIFY, Keys
from service.store.registry import Registry
from service.telemetry.live_reporter import LiveReporter
from service.telemetry.metrics import Metrics
from service.trainer.messages import Progress
from service.worker import attempt
from service.worker import worker as worker_module
from service.worker.shadow_scoring import ROWS
from service.worker.worker import Worker
from tests.service.stored import Stored, matrix
from tests.waiting import until

pytestmark = pytest.mark.anyio

TINY = {"model": {"hidden": [4], "latent": 2, "epochs": 2}}


@cache
def _artifact(seed: int = 0) -> bytes:
    return train(None, matrix(40), Config.from_dict({**TINY, "seed": seed})).to_bytes()


class FakeTrainer:
    """Trains at once, or fails, or waits, as the test says."""

    def __init__(self) -> None:
        self.jobs = []
        self.fail: str | None = None
        self.waits = False
        self.started, self.go, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def warm(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def train(self, job, report) -> bytes:
        self.jobs.append(job)
        report(Progress(0.5, 1.0))
        self.started.set()
        if self.waits:
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.stopped.set()
                raise
        if self.fail:
            raise TrainingError(self.fail)
        return _artifact(len(self.jobs))


@pytest.fixture
def trainer() -> FakeTrainer:
    """Return a trainer without a process."""
    return FakeTrainer()


@pytest.fixture
def make_worker(redis: Redis, store_url: str, trainer: FakeTrainer):
    """Return a function that makes workers, which tick only when the test calls them."""

    def make(**settings) -> Worker:
        return Worker(Settings(redis_url=store_url, **settings), redis, store_url, trainer)

    return make


@pytest.fixture(scope="module", autouse=True)
def _learning_is_loaded() -> None:
    """Load the training libraries before any event loop, where loading would outlast a lease."""
    _artifact()


@pytest.fixture
def worker(make_worker) -> Worker:
    """Return one worker."""
    return make_worker()


@asynccontextmanager
async def running(worker: Worker):
    """Run the worker in the background, and end it."""
    life = asyncio.create_task(worker.run())
    try:
        yield life
    finally:
        worker.stop()
        await asyncio.wait_for(life, 10)


async def _tick(worker: Worker) -> bool:
    """Tick as if all pauses were over."""
    worker.due_detectors.look_again()
    worker.due_detectors._not_before.clear()
    return await worker.tick()


async def _training(worker: Worker, trainer: FakeTrainer) -> asyncio.Task:
    """Start a tick; return it once the trainer works and waits for `trainer.go`."""
    trainer.waits = True
    trainer.started.clear()
    ticking = asyncio.create_task(worker.tick())
    await asyncio.wait_for(trainer.started.wait(), 5)
    return ticking


async def test_a_retraining_by_hand_is_learned_and_promoted(worker, stored: Stored):
    """A tick takes the buffer, trains, promotes, and records the version's origin."""
    ingested = await stored.buffer.ingest("pump", matrix(40), sender="k1")
    await stored.detectors.request_retrain("pump")
    assert await worker.tick()
    detector = await stored.get()
    assert (detector.champion, detector.generation, detector.buffered) == (1, 1, 0)
    assert (detector.learned, detector.consumed) == (40, 40)
    assert detector.retraining == Retraining("idle", 0.0)
    assert detector.last_retraining.outcome == "promoted"
    record = (await stored.registry.record("pump", 1)).to_dict()
    assert record["parent"] is None
    assert record["experience"]["batches"] == [ingested.batch_id]
    assert record["who"] == f"worker:{worker.id}"
    assert record["gate"]["passed"] in (True, False)
    assert record["trigger"] == "by hand"
    assert record["timings"]["total"] >= record["timings"]["training"] > 0
    assert record["threshold"]["policy"] == {"fpr": 0.01}
    assert record["sha256"]
    assert await stored.leases.acquire("pump", 1.0) is not None  # the lease was given back


async def test_a_training_names_the_traces_of_its_requests(worker, stored: Stored):
    """A training has the traces of its request and its batches: each once, at most ten."""
    traces = [f"{i:032x}" for i in range(1, 13)]
    for trace in (traces[0], "", *traces):
        await stored.buffer.ingest("pump", matrix(4), trace=trace)
    await stored.detectors.request_retrain("pump", trace="f" * 32)
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert await worker.tick()
    traces_by_event = {line["event"]: line.get("traces") for line in lines}
    assert (
        traces_by_event["retraining started"]
        == traces_by_event["promoted"]
        == ["f" * 32, *traces[:9]]
    )
    record = (await stored.registry.record("pump", 1)).to_dict()
    assert record["experience"]["traces"] == traces[:10]
    await stored.ask_to_retrain(seed=1)
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert await worker.tick()
    assert not any("traces" in line for line in lines)


async def test_the_record_has_the_threshold_by_labels(worker, stored: Stored):
    """Under the policy `labels` the record has the threshold with which the version would serve."""
    policy, far = {"labels": {"beta": 1}}, matrix(5, seed=1) + 9
    uid = (await stored.make(threshold=policy)).uid
    labels = [Label("anomaly", row) for row in far] + [Label("normal", row) for row in matrix(5)]
    await stored.buffer.ingest("pump", matrix(40))
    assert await LabelStore(stored.redis).add("pump", uid, labels)
    await stored.detectors.request_retrain("pump")
    assert await worker.tick()
    record = (await stored.registry.record("pump", 1)).to_dict()
    version = Version.from_bytes(await stored.registry.artifact("pump", 1))
    labelled = Labels(np.concatenate([far, matrix(5)]), np.arange(10) < 5)
    expected = version.threshold_for(policy, labelled)
    assert record["threshold"] == {
        "value": expected.value, "alpha": expected.alpha, "policy": policy,
    }  # fmt: skip
    assert expected.value != version.threshold_for({"fpr": 0.01}).value


async def test_the_trainer_gets_labels_and_anchor(worker, trainer, stored: Stored):
    """The trainer gets the labels, and the first version of the line beside the champion."""
    uid = (await stored.make(**TINY)).uid
    far = matrix(2, seed=1) + 9
    labels = [Label("anomaly", far[0]), Label("normal", far[1]), Label("normal", far[0])]
    assert await LabelStore(stored.redis).add("pump", uid, labels)
    for _ in range(4):
        await stored.ask_to_retrain()
        assert await _tick(worker)
    assert (trainer.jobs[0].labelled_rows, trainer.jobs[0].anomalous) == (far.tobytes(), bytes(2))
    first = await stored.registry.artifact("pump", 1)
    assert [job.anchor for job in trainer.jobs] == [None, None, first, first]
    records = [record.to_dict() for record in await stored.registry.records("pump")]
    assert [record["anchor"] for record in records] == [None, 1, 1, 1]


async def test_a_damaged_anchor_counts_as_pruned(worker, stored: Stored):
    """If the anchor's artifact is damaged, the champion is the anchor, and learning goes on."""
    for seed in range(3):
        if seed == 2:
            digest = (await stored.registry.record("pump", 1)).record.sha256
            await stored.redis.setrange(Keys("pump").artifact(digest), 100, b"damaged")
        await stored.ask_to_retrain(seed=seed)
        assert await _tick(worker)
    records = [record.to_dict() for record in await stored.registry.records("pump")]
    assert [record["anchor"] for record in records] == [None, 1, 2]


async def test_a_rejected_version_promoted_by_hand_is_the_anchor(worker, stored: Stored):
    """A version that a person promoted although the gate rejected it becomes the anchor."""
    for good in (True, False):
        await stored.learn(artifact=_artifact(9 + good), good=good)
    await stored.registry.set_champion("pump", 2)
    await stored.ask_to_retrain()
    assert await _tick(worker)
    assert (await stored.registry.record("pump", 3)).to_dict()["anchor"] == 2


async def _serve(stored: Stored, stores: Stores, X: np.ndarray) -> None:
    """Score X as an API process does, and store the vectors."""
    detector = await stored.get()
    version = Version.from_bytes(await stored.registry.artifact("pump", detector.champion))
    threshold = version.threshold_for(detector.config.threshold)
    serving = Champion(
        "pump", detector.uid, detector.champion, detector.generation, 1, version, threshold
    )
    champions = Champions(1)
    champions.note(detector)
    champions.install(serving)
    reporter = LiveReporter(stores, champions, Metrics(CollectorRegistry()))
    reporter.scored(Judged(serving, X, version.judge(X)), 0.001)
    await reporter.flush()


async def test_a_candidate_scores_live_traffic_before_it_serves(
    redis: Redis, stored: Stored, store_url: str
):
    """A candidate is promoted after enough live vectors, and its record has the comparison."""
    model = {"hidden": [16], "latent": 2, "epochs": 100}
    await stored.make(model=model, retrain={"shadow": {"vectors": 60, "seconds": 300}})
    settings = Settings(redis_url=store_url)
    stores = await Stores.open(settings, store_url)
    worker = Worker(settings, redis, store_url)
    try:
        for seed in range(2):
            await stored.ask_to_retrain(400, seed=seed)
            ticking = asyncio.create_task(_tick(worker))
            if seed:  # the worker trains, or waits
                await _serve(stored, stores, matrix(60, seed=9))
            assert await ticking
    finally:
        await stores.close()
        await worker.tools.trainer.close()
    first, second = (record.to_dict() for record in await stored.registry.records("pump"))
    assert "shadow" not in first["gate"]["evidence"]
    assert second["gate"]["reasons"] == []
    shadow = second["gate"]["evidence"]["shadow"]
    assert (shadow["asked"], shadow["n"]) == (60, 60)
    assert len(shadow["rows"]) == min(shadow["disagree"], ROWS)


async def test_nothing_is_learned_unless_it_is_due(worker, trainer, stored: Stored):
    """With fewer vectors than the trigger, and without a request, nothing is learned."""
    await stored.buffer.ingest("pump", matrix(40))
    assert not await worker.tick()
    assert not trainer.jobs


async def test_the_next_version_is_trained_on_top_of_the_champion(worker, trainer, stored: Stored):
    """The job has the champion's artifact, the new vectors and this run's weights."""
    await stored.learn(artifact=_artifact())
    await stored.buffer.ingest("pump", matrix(50, seed=1))
    await stored.detectors.request_retrain("pump", {"w_prev": 0.25, "w_new": 0.75})
    assert await worker.tick()
    (job,) = trainer.jobs
    assert job.previous == _artifact()
    assert bytes(job.vectors) == matrix(50, seed=1).tobytes()
    assert job.weights == {"w_prev": 0.25, "w_new": 0.75}
    assert (await stored.registry.record("pump", 2)).to_dict()["parent"] == 1


async def test_progress_is_published_while_the_trainer_works(worker, trainer, stored: Stored):
    """The status says running, and the progress."""
    await stored.ask_to_retrain()
    ticking = await _training(worker, trainer)

    async def half_is_reported() -> bool:
        return (await stored.get()).retraining.progress == 0.5

    await until(half_is_reported)
    trainer.go.set()
    assert await ticking


async def test_three_failures_park_the_experience(worker, trainer, stored: Stored):
    """After three failures the experience is parked with the reason; the next batch is learned."""
    trainer.fail = "the loss is nan"
    await stored.ask_to_retrain()
    for _ in range(2):
        assert not await _tick(worker)
        assert (await stored.get()).retraining.state == "queued"
    assert await _tick(worker)
    detector = await stored.get()
    assert (detector.buffered, detector.parked, detector.retrains.failed) == (0, 40, 1)
    assert detector.retraining.state == "idle"
    assert detector.last_retraining.outcome == "failed"
    assert detector.last_retraining.reasons == ("the loss is nan",)
    assert [e.reason for e in await stored.quarantine.list("pump")] == ["the loss is nan"]
    trainer.fail = None
    await stored.ask_to_retrain(50, seed=1)
    assert await _tick(worker)
    assert ((await stored.get()).champion, (await stored.get()).learned) == (1, 50)


async def test_an_unwritable_outcome_counts_as_an_attempt(
    worker, trainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
):
    """An outcome that cannot be written is an attempt; after three the experience is parked."""
    broken = []

    async def fail_to_settle(*_: object, **__: object) -> int:
        broken.append(1)
        raise OverflowError("int too big to convert")

    monkeypatch.setattr(worker.tools.stores.registry, "settle", fail_to_settle)
    await stored.ask_to_retrain()
    for failed in (1, 2):
        await _tick(worker)
        assert (await stored.get()).attempts == failed
    await _tick(worker)
    detector = await stored.get()
    assert (len(broken), detector.parked, detector.retraining.state) == (3, 40, "idle")
    assert "OverflowError" in detector.last_retraining.reasons[0]


@pytest.mark.parametrize("failures", [1, 3])
async def test_an_unreadable_experience_counts_as_an_attempt(
    worker, stored: Stored, monkeypatch: pytest.MonkeyPatch, failures: int
):
    """Rows that cannot be read are read again, and learned if they can be; else they are parked."""
    take = Buffer.take

    async def fail_to_read(self: Buffer, name: str, *, rows: bool = True) -> Experience | None:
        if rows:
            raise MemoryError
        return await take(self, name, rows=rows)

    await stored.ask_to_retrain()
    with monkeypatch.context() as patched:
        patched.setattr(Buffer, "take", fail_to_read)
        settled = [await _tick(worker) for _ in range(failures)]
    detector = await stored.get()
    if failures == 3:
        assert (settled, detector.parked) == ([False, False, True], 40)
        assert detector.last_retraining.reasons == ("not enough memory in the worker",)
        return
    assert (settled, detector.attempts, detector.retraining.state) == ([False], 1, "queued")
    assert await _tick(worker)
    assert (await stored.get()).champion == 1


@pytest.mark.parametrize("field", ["n", "d", "x", "b"])
async def test_a_damaged_batch_is_parked_and_can_be_discarded(
    worker, stored: Stored, redis: Redis, field: str
):
    """A stored batch that lost a field is parked with a plain reason, and the buffer goes on."""
    await stored.ask_to_retrain()
    keys = Keys("pump")
    ((entry, fields),) = await redis.xrange(keys.stream)
    await redis.delete(keys.stream)
    del fields[field.encode()]
    await redis.xadd(keys.stream, fields, id=entry)
    settled = [await _tick(worker) for _ in range(3 if field != "b" else 1)]
    detector = await stored.get()
    assert (settled[-1], detector.buffered, detector.retraining.state) == (True, 0, "idle")
    if field == "b":  # the batch's id is not needed to learn it
        assert detector.champion == 1
        return
    (parked,) = await stored.quarantine.list("pump")
    assert parked.reason.startswith(f"The stored batch {entry.decode()} is damaged.")
    await stored.quarantine.decide("pump", parked.id, "discard")
    assert (await stored.get()).parked == 0
    await stored.ask_to_retrain(seed=1)
    assert await _tick(worker)
    assert (await stored.get()).champion == 1


async def test_a_buffer_that_cannot_be_read_ends_with_one_reason(
    worker, stored: Stored, redis: Redis
):
    """A stream of a wrong type ends the run after three attempts; a person may start another."""
    await stored.make(retrain={"min_vectors": 32, "max_age_seconds": None})
    await stored.buffer.ingest("pump", matrix(40))
    await redis.delete(Keys("pump").stream)
    await redis.set(Keys("pump").stream, "damaged")
    assert [await _tick(worker) for _ in range(4)] == [False, False, True, False]
    detector = await stored.get()
    assert (detector.retraining.state, detector.last_retraining.outcome) == ("idle", "failed")
    (reason,) = detector.last_retraining.reasons
    assert Keys("pump").stream in reason
    await redis.delete(Keys("pump").stream)
    await stored.detectors.request_retrain("pump")
    assert await _tick(worker)
    assert (await stored.get()).buffered == 0


async def test_a_failed_attempt_waits_before_the_next(worker, trainer, stored: Stored):
    """After a failed attempt the worker waits before the next one."""
    trainer.fail = "no"
    await stored.ask_to_retrain()
    for _ in range(5):
        worker.due_detectors.look_again()
        await worker.tick()
    assert len(trainer.jobs) == 1


async def test_a_broken_artifact_from_the_trainer_is_never_promoted(
    worker, trainer, stored: Stored, monkeypatch
):
    """An artifact that does not verify counts as a failed training."""
    monkeypatch.setattr(trainer, "train", _train_broken)
    await stored.ask_to_retrain()
    assert not await worker.tick()
    detector = await stored.get()
    assert (detector.champion, detector.attempts, detector.buffered) == (None, 1, 40)


async def _train_broken(job, report) -> bytes:
    return _artifact()[:-1]


@pytest.mark.parametrize("loss", ["taken", "expired"])
async def test_a_lost_lease_stops_the_training_and_changes_nothing(
    worker, trainer, stored: Stored, redis: Redis, loss
):
    """Without its lease a training is stopped, and the experience stays buffered."""
    await stored.ask_to_retrain()
    ticking = await _training(worker, trainer)
    (key,) = [k async for k in redis.scan_iter("*lease:worker")]
    await (redis.set(key, "another") if loss == "taken" else redis.delete(key))
    assert not await asyncio.wait_for(ticking, 5)
    assert trainer.stopped.is_set()
    detector = await stored.get()
    assert (detector.champion, detector.last_version, detector.buffered) == (None, 0, 40)
    assert detector.attempts == 0
    await redis.delete(key)
    trainer.waits = False
    assert await _tick(worker)
    assert (await stored.get()).champion == 1


async def test_a_promotion_after_the_lease_is_refused(
    make_worker, trainer, stored: Stored, redis: Redis
):
    """A worker that was stopped past its lease is refused by its token."""
    worker = make_worker(lease_seconds=60)
    await stored.ask_to_retrain()
    ticking = await _training(worker, trainer)
    (key,) = [k async for k in redis.scan_iter("*lease:worker")]
    await redis.delete(key)
    trainer.go.set()  # before the next renewal could notice it
    assert not await ticking
    assert ((await stored.get()).last_version, (await stored.get()).buffered) == (0, 40)


async def test_a_rollback_during_a_training_starts_it_again(worker, trainer, stored: Stored):
    """After a rollback the retraining starts again from that version; no attempt is counted."""
    await stored.learn(artifact=_artifact(), seed=0)
    await stored.learn(artifact=_artifact(1), seed=1)
    await stored.ask_to_retrain(50, seed=2)
    ticking = await _training(worker, trainer)
    await stored.registry.set_champion("pump", 1)
    assert not await asyncio.wait_for(ticking, 5)
    assert trainer.stopped.is_set()
    detector = await stored.get()
    assert (detector.champion, detector.buffered, detector.attempts) == (1, 50, 0)
    assert detector.retraining.state != "idle"
    trainer.waits = False
    assert await _tick(worker)
    assert (await stored.registry.record("pump", 3)).to_dict()["parent"] == 1
    assert (await stored.get()).learned == 90


async def test_nothing_of_a_deleted_detector_reaches_its_successor(worker, trainer, stored: Stored):
    """Nothing of a deleted detector reaches one that is created again."""
    await stored.ask_to_retrain()
    ticking = await _training(worker, trainer)
    await stored.detectors.delete("pump")
    await stored.make()
    assert not await asyncio.wait_for(ticking, 5)
    assert (await stored.get()).last_version == 0


@pytest.mark.parametrize(("policy", "outcome"), [("enforce", "rejected"), ("report", "promoted")])
async def test_the_gate_decides_unless_it_only_reports(
    worker, stored: Stored, monkeypatch, policy, outcome
):
    """A rejected candidate is recorded with its reasons; with `report` it is promoted."""
    verdict = SimpleNamespace(passed=False, reasons=["worse on old normals"])
    monkeypatch.setattr(attempt, "gate", lambda _: verdict)
    await stored.make(gate=policy)
    await stored.ask_to_retrain()
    assert await worker.tick()
    record = (await stored.registry.record("pump", 1)).to_dict()
    assert record["outcome"] == outcome
    assert (record["gate"]["passed"], record["gate"]["reasons"]) == (False, verdict.reasons)
    detector = await stored.get()
    assert detector.last_retraining.outcome == outcome
    assert detector.champion == (1 if outcome == "promoted" else None)
    assert detector.parked == (0 if outcome == "promoted" else 40)


async def test_workers_share_the_detectors_without_a_double_version(make_worker, stored: Stored):
    """Four workers on three due detectors make three versions."""
    for name in ("a", "b", "c"):
        await stored.make(name)
        await stored.ask_to_retrain(name=name)
    workers = [make_worker() for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(*(_tick(worker) for worker in workers))
    assert [(await stored.get(name)).last_version for name in "abc"] == [1, 1, 1]
    assert [(await stored.get(name)).learned for name in "abc"] == [40, 40, 40]


async def test_workers_past_their_leases_make_no_double_version(
    redis: Redis, store_url: str, stored: Stored, monkeypatch
):
    """Eight workers with leases of 100 ms are stopped past them, and numbers have no gaps."""
    monkeypatch.setattr("service.worker.due_detectors._RETRY_SECONDS", 0.01)
    rng, refused = random.Random(0), []

    class Stopping(FakeTrainer):
        async def train(self, job, report) -> bytes:
            del job, report
            await asyncio.sleep(rng.uniform(0, 0.03))
            if rng.random() < 0.3:
                # All workers stop, as on a frozen machine.
                time.sleep(rng.uniform(0, 0.25))  # noqa: ASYNC251
            return _artifact(rng.randrange(3))

    async def settle_and_note_refusals(*args, settle=Registry.settle, **options) -> int:
        if rng.random() < 0.2:
            # The worker saw that its lease holds; now the machine stops until the lease has ended.
            time.sleep(0.15)  # noqa: ASYNC251
        try:
            return await settle(*args, **options)
        except Fenced as fenced:
            refused.append(str(fenced))
            raise

    monkeypatch.setattr(Registry, "settle", settle_and_note_refusals)
    await stored.make(gate="report", retrain={"min_vectors": 32}, keep_learned_seconds=3600)
    settings = Settings(redis_url=store_url, lease_seconds=0.1, tick_seconds=0.01)
    workers = [Worker(settings, redis, store_url, Stopping()) for _ in range(8)]
    lives = [asyncio.create_task(worker.run()) for worker in workers]
    sent: list[str] = []
    # Until a late promotion was tried, however fast the machine is.
    while (detector := await stored.get()).last_version < 20 or not refused:
        if detector.buffered < 64:
            sent.append((await stored.buffer.ingest("pump", matrix(32))).batch_id)
        await asyncio.sleep(0.005)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*lives)
    detector = await stored.get()
    records = [record.to_dict() for record in await stored.registry.records("pump")]
    learned = [batch for record in records for batch in record["experience"]["batches"]]
    assert learned == sent[: len(learned)]
    assert detector.consumed + detector.buffered == 32 * len(sent)
    assert [record["version"] for record in records] == list(range(1, len(records) + 1))
    history = await stored.registry.history("pump")
    assert [move.generation for move in history] == list(range(1, len(records) + 1))


async def test_a_detector_that_is_always_due_delays_no_other(worker, stored: Stored):
    """A detector that is always due does not keep the others waiting."""
    for name in ("a", "b"):
        await stored.make(name)
        await stored.ask_to_retrain(name=name)
    assert await _tick(worker)
    first = "a" if (await stored.get("a")).champion else "b"
    await stored.ask_to_retrain(name=first)
    assert await _tick(worker)
    assert [(await stored.get(name)).last_version for name in "ab"] == [1, 1]


async def test_looking_for_work_reads_only_due_detectors(worker, stored: Stored, monkeypatch):
    """Due detectors are found by the index: no other detector is read."""
    for number in range(20):
        await stored.make(f"idle-{number}")
    await stored.make("busy", retrain={"min_vectors": 32})
    await stored.buffer.ingest("busy", matrix(40))
    read: set[str] = set()

    async def read_and_note(names, existing=worker.tools.stores.detectors.existing):
        read.update(names)
        return await existing(names)

    monkeypatch.setattr(worker.tools.stores.detectors, "existing", read_and_note)
    assert await worker.tick()
    assert read == {"busy"}
    assert (await stored.get("busy")).champion == 1
    assert await worker.tools.stores.due.work() == Work(0, 0, 0.0)


async def test_a_wrong_entry_leaves_the_due_index(worker, trainer, stored: Stored):
    """A detector that was paused after it became due is looked at only one time."""
    await stored.make(retrain={"min_vectors": 32})
    await stored.buffer.ingest("pump", matrix(40))
    assert (await worker.tools.stores.due.work()).due == 1
    await stored.make(retrain={"min_vectors": 32, "paused": True})
    assert not await worker.tick()
    assert (await worker.tools.stores.due.work()).due == 0
    assert not trainer.jobs


async def test_a_request_by_hand_wakes_the_worker(make_worker, stored: Stored):
    """A request to retrain starts at once, not at the next poll."""
    async with running(make_worker(tick_seconds=60)) as life:
        await stored.buffer.ingest("pump", matrix(40))
        await asyncio.sleep(0)

        async def listening() -> bool:
            assert not life.done()
            return bool((await stored.redis.pubsub_numsub(NOTIFY))[0][1])

        await until(listening)
        requested_at = time.monotonic()
        await stored.detectors.request_retrain("pump")

        async def learned() -> bool:
            return (await stored.get()).champion == 1

        await until(learned)
        assert time.monotonic() - requested_at < 30  # 0.02 s on a quiet machine


async def test_only_a_living_worker_has_a_heartbeat(make_worker, stored: Stored):
    """A living worker has a heartbeat, and a stopped one has none."""
    worker = make_worker()

    async def has_heartbeat() -> bool:
        return worker.id in await stored.leases.workers()

    async with running(worker):
        await until(has_heartbeat)
    assert not await has_heartbeat()


async def test_a_worker_logs_once_that_the_store_refuses_writes(own_store, own_redis, trainer):
    """A store that is out of memory answers reads; the heartbeat shows that it refuses writes."""
    worker = Worker(Settings(), own_redis, own_store.url, trainer)
    with capture_logs() as lines:
        await own_redis.config_set("maxmemory", "1")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await worker.beat()
        await own_redis.config_set("maxmemory", "0")
        await worker.beat()
        await worker.beat()
    assert [line["event"] for line in lines] == [
        "store refuses writes",
        "store accepts writes again",
    ]
    assert "maxmemory" in lines[0]["why"]
    await worker.shutdown()


async def test_a_worker_that_was_frozen_continues_soon(make_worker, monkeypatch):
    """After a freeze of an hour, a task beside the training pauses for a minute at most."""
    rests: list[float] = []
    now = [0.0]

    async def frozen() -> None:
        now[0] += 3600.0

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("service.worker.worker.time.monotonic", lambda: now[0])
    monkeypatch.setattr("service.worker.worker.asyncio.sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        await make_worker()._repeat(1.0, frozen)
    assert rests == [LONGEST, LONGEST]


async def test_sigterm_stops_a_training_at_once(make_worker, trainer, stored: Stored):
    """SIGTERM stops a training at once; the next worker takes the experience."""
    trainer.waits = True
    await stored.ask_to_retrain()
    async with running(make_worker()):
        await asyncio.wait_for(trainer.started.wait(), 5)
    assert trainer.stopped.is_set()
    assert (await stored.get()).buffered == 40
    trainer.waits = False
    assert await make_worker().tick()
    assert (await stored.get()).champion == 1


async def test_a_worker_that_may_drain_ends_after_its_training(
    make_worker, trainer, stored: Stored
):
    """A worker that is scaled down ends after its training; a second signal stops it at once."""
    trainer.waits = True
    for name, second_signal, seconds, learned in (
        ("a", False, 600, True), ("b", True, 600, False), ("c", False, 0.001, False),
    ):  # fmt: skip
        await stored.make(name)
        await stored.ask_to_retrain(name=name)
        trainer.started.clear()
        trainer.go.clear()
        worker = make_worker(training_drain_seconds=seconds)
        life = asyncio.create_task(worker.run())
        await asyncio.wait_for(trainer.started.wait(), 120)
        worker.stop()
        if second_signal:
            worker.stop()
        if learned:
            trainer.go.set()
        await asyncio.wait_for(life, 120)
        assert bool((await stored.get(name)).champion) is learned
        await stored.detectors.delete(name)


async def test_a_worker_continues_within_5_s_after_an_outage(own_store, own_redis, trainer):
    """A worker survives an outage of the store, and learns soon after its end."""
    stored = Stored(own_redis)
    await stored.make()
    await stored.buffer.ingest("pump", matrix(40))
    settings = Settings(redis_url=own_store.url)
    async with running(Worker(settings, own_redis, own_store.url, trainer)) as life:

        async def beats() -> bool:
            return bool(await stored.leases.workers())

        await until(beats)
        own_store.kill()
        await asyncio.wait({life}, timeout=1.0)  # long enough for the worker to notice
        own_store.start()
        back_at = time.monotonic()
        await stored.detectors.request_retrain("pump")

        async def learned() -> bool:
            return (await stored.get()).champion == 1

        await until(learned)
        assert time.monotonic() - back_at < 60
        assert not life.done()


async def test_a_short_outage_during_a_training_costs_nothing(own_store, own_redis, trainer):
    """A lease outlives a short outage, and the outcome is written when the store is back."""
    stored = Stored(own_redis)
    await stored.make()
    await stored.ask_to_retrain()
    worker = Worker(Settings(redis_url=own_store.url), own_redis, own_store.url, trainer)
    ticking = await _training(worker, trainer)
    own_store.kill()
    trainer.go.set()
    await asyncio.wait({ticking}, timeout=0.5)  # it tries to promote meanwhile
    own_store.start()
    assert await asyncio.wait_for(ticking, 10)
    assert len(trainer.jobs) == 1
    assert (await stored.get()).champion == 1


async def test_a_training_that_ends_with_every_worker_is_parked_at_last(
    worker, trainer, stored: Stored, monkeypatch
):
    """An experience that ended too many workers is parked without being read."""
    monkeypatch.setattr(attempt, "_INTERRUPTIONS", 2)
    monkeypatch.setattr(attempt, "ATTEMPTS", 1)
    await stored.make()
    await stored.ask_to_retrain(40)
    for _ in range(2):  # two workers die
        lease = await stored.lease()
        await stored.retrainings.start(lease)
        await stored.leases.release(lease)
    take = Buffer.take

    async def without_rows(self: Buffer, name: str, *, rows: bool = True) -> Experience | None:
        assert not rows, "these rows end every worker that reads them"
        return await take(self, name, rows=rows)

    monkeypatch.setattr(Buffer, "take", without_rows)
    assert await _tick(worker)
    detector = await stored.get()
    assert (detector.parked, detector.interrupted, len(trainer.jobs)) == (40, 0, 0)
    last = detector.last_retraining
    assert (last.outcome, last.reasons[0][:46]) == (
        "failed", "2 trainings of this experience ended with thei"
    )  # fmt: skip


async def test_a_worker_that_stops_interrupts_no_training(worker, trainer, stored: Stored):
    """A training that its worker gives up waits in the queue, and is not counted as interrupted."""
    await stored.make()
    await stored.ask_to_retrain(40)
    ticking = await _training(worker, trainer)
    worker.stop()
    await asyncio.wait_for(ticking, 10)
    detector = await stored.get()
    assert (detector.retraining.state, detector.interrupted) == ("queued", 0)


async def test_a_weak_store_is_refused_at_start(own_store, own_redis, trainer):
    """The message names the setting that can lose acknowledged writes."""
    await own_redis.config_set("appendfsync", "everysec")
    with pytest.raises(WeakStore, match="appendfsync"):
        await Worker(Settings(redis_url=own_store.url), own_redis, own_store.url, trainer).run()


async def test_a_worker_learns_nothing_while_its_store_is_weak(
    own_store, own_redis, trainer, monkeypatch
):
    """A store that gets an eviction policy while a worker runs pauses the learning."""
    checks = 0

    async def counted(*args, **options) -> tuple[str, ...]:
        nonlocal checks
        checks += 1
        return await check_durability(*args, **options)

    monkeypatch.setattr(durability, "_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(durability, "check_durability", counted)
    monkeypatch.setattr(worker_module, "_AWAY_SECONDS", 0.05)
    stored = Stored(own_redis)
    await stored.make()
    await stored.buffer.ingest("pump", matrix(40))
    worker = Worker(Settings(redis_url=own_store.url), own_redis, own_store.url, trainer)
    async with running(worker) as life:
        await until(lambda: checks > 1)  # the start was allowed
        await own_redis.config_set("maxmemory-policy", "allkeys-lru")
        await until(lambda: worker.durability.weak is not None)
        await stored.detectors.request_retrain("pump")
        before = checks
        await until(lambda: checks > before + 3)
        assert not trainer.jobs
        await own_redis.config_set("maxmemory-policy", "noeviction")
        await until(lambda: bool(trainer.jobs))
        assert not life.done()


async def test_a_version_waits_while_its_store_is_weak(own_store, own_redis, trainer, monkeypatch):
    """A store that becomes weak during a training gets the version once it is durable again."""
    monkeypatch.setattr(attempt, "_WEAK_SECONDS", 0.05)
    stored = Stored(own_redis)
    await stored.make()
    await stored.ask_to_retrain(40)
    worker = Worker(Settings(redis_url=own_store.url), own_redis, own_store.url, trainer)
    ticking = await _training(worker, trainer)
    await own_redis.config_set("maxmemory-policy", "allkeys-lru")
    trainer.go.set()
    await until(lambda: worker.durability.weak is not None)
    detector = await stored.get()
    assert (detector.champion, detector.buffered) == (None, 40)
    await own_redis.config_set("maxmemory-policy", "noeviction")
    assert await asyncio.wait_for(ticking, 10)
    assert len(trainer.jobs) == 1
    assert (await stored.get()).champion == 1


async def test_the_same_seed_data_and_parent_give_the_same_version(
    redis: Redis, store_url: str, stored: Stored
):
    """Two detectors with the same history have artifacts with the same sha256."""
    worker = Worker(Settings(redis_url=store_url), redis, store_url)
    try:
        for name in ("a", "b"):
            await stored.make(name, gate="report", **TINY)
            for seed in (1, 2):
                await stored.ask_to_retrain(100, seed=seed, name=name)
                assert await _tick(worker)
    finally:
        await worker.shutdown()
    for number in (1, 2):
        a, b = [(await stored.registry.record(name, number)).to_dict() for name in ("a", "b")]
        assert a["sha256"] == b["sha256"]
    detector = await stored.get("a")
    first = train(None, matrix(100, seed=1), Config.from_dict(detector.config.to_dict()))
    assert (await stored.registry.record("a", 1)).to_dict()["sha256"] == first.sha256


async def test_rows_labelled_normal_are_marked_for_the_trainer(worker, trainer, stored: Stored):
    """The rows of a batch with labels `normal` are marked for the trainer."""
    uid = (await stored.make(**TINY)).uid
    far = matrix(3, seed=1) + 9
    await stored.buffer.ingest("pump", matrix(40))
    batch = (await stored.buffer.ingest("pump", far)).batch_id
    labels = [Label("normal", row, batch=batch) for row in far]
    assert await LabelStore(stored.redis).add("pump", uid, labels)
    await stored.detectors.request_retrain("pump")
    assert await _tick(worker)
    assert trainer.jobs[0].vouched == bytes(40) + bytes([1] * 3)
