"""One attempt to retrain a detector, from the lease to its outcome.

Only the last step changes anything. It is one fenced script: the store refuses it if the lease is
lost, or if the champion or the cursor has moved. Until then the experience stays in the buffer. So
an attempt may be cancelled, or its process killed, at any moment.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import UNSET

from models import MIN_VECTORS, ArtifactError, TrainingError, Version
from models.decisions.gate import gate
from models.decisions.shadow_result import ShadowResult
from models.parts.labels import Labels
from service import crash_points, log
from service.domain.detector import Detector, resolved
from service.domain.experience import Experience
from service.domain.retraining_due import ATTEMPTS
from service.domain.trace import distinct_traces
from service.domain.version_record import (
    GateEvidence,
    GateRecord,
    NewRecord,
    Timings,
    describe,
    labelled_outcome,
)
from service.domain.words import worded
from service.json_value import JsonObject
from service.problems import StoreUnavailable
from service.store.buffer import DamagedBuffer
from service.store.connection import WeakStore
from service.store.labels import labels_for_threshold, latest_labels
from service.store.leases import Lease
from service.store.lua import Fenced
from service.store.retrainings import StartedRun, TrainingProgress
from service.trainer.messages import Job, Progress
from service.worker import shadow_scoring
from service.worker.lease_keeper import LeaseKeeper
from service.worker.toolbox import Tools

_log = log.get(__name__)

_LEAST_SHARE = 0.01  # of a training, before which the time left is not estimated
# If the worker ends in this many trainings of an experience, they count as a failed attempt. Fewer
# do not count, because workers may be killed for other reasons.
_INTERRUPTIONS = 10
_AGAIN_SECONDS = 0.2  # between two tries to write an outcome while the lease lasts
_WEAK_SECONDS = 1.0  # between two checks of a store that could lose the outcome


async def attempt(tools: Tools, detector: Detector, why: str) -> bool:
    """Retrain `detector`, which is due because of `why`. Return whether there is a final outcome.

    It returns False if another worker has the lease, if the attempt was given up, and if the
    training failed but will be tried again. Raises StoreUnavailable.
    """
    lease = await tools.stores.leases.acquire(detector.name, tools.settings.lease_seconds)
    if lease is None:
        return False
    crash_points.passage("worker.leased")
    keeper = LeaseKeeper(tools.stores, lease)
    try:
        return await _Attempt(tools, keeper, why).retrain()
    except Fenced as fenced:
        _log.info("retraining ended without a result", detector=detector.name, why=str(fenced))
        return False
    finally:
        with contextlib.suppress(StoreUnavailable, Fenced):
            await tools.stores.retrainings.give_up(keeper.lease)
        with contextlib.suppress(StoreUnavailable):
            await tools.stores.leases.release(keeper.lease)
        await tools.stores.due.retraining_over(detector.name)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A verified version without a number yet, and the content of its record."""

    artifact: bytes
    record: NewRecord
    seconds: float
    accepted: bool


class _Attempt:
    """The steps of one attempt, under a lease that is kept meanwhile."""

    def __init__(self, tools: Tools, keeper: LeaseKeeper, why: str) -> None:
        self.tools = tools
        self._keeper = keeper
        self._why = why
        self._began = time.monotonic()
        self._training_began = time.monotonic()

    @property
    def lease(self) -> Lease:
        """The latest lease."""
        return self._keeper.lease

    async def retrain(self) -> bool:
        name = self.lease.name
        detector = await self.tools.stores.detectors.get(name)
        if detector is None or detector.uid != self.lease.uid:
            return False
        run = await self.tools.stores.retrainings.start(self.lease)
        if run.interrupted and run.interrupted % _INTERRUPTIONS == 0:
            return await self._failed_unread(
                f"{run.interrupted} trainings of this experience ended with their worker, or "
                "without its lease. The worker may have too little memory."
            )
        try:
            experience = await self._experience(name)
        except DamagedBuffer as damage:
            return await self._failed_unread(str(damage))
        except (StoreUnavailable, Fenced):
            raise
        except Exception as error:  # noqa: BLE001 - after three failures later data is learned
            _log.exception("reading the experience failed", detector=name)
            return await self._failed_unread(_reason(error))
        if experience is None:
            await self.tools.stores.retrainings.stand_down(self.lease)
            return True
        return await self._keeper.while_kept(experience, self._learn(detector, experience, run))

    async def _experience(self, name: str) -> Experience | None:
        """Return the experience, None if it is too small. A row labelled by a person is enough."""
        experience = await self.tools.stores.buffer.take(name)
        crash_points.passage("worker.experience_taken")
        if experience is None or experience.n >= MIN_VECTORS:
            return experience
        labelled = experience.champion is not None and await self._labelled_normal(experience)
        return experience if labelled else None

    async def _learn(self, detector: Detector, experience: Experience, run: StartedRun) -> bool:
        if traces := distinct_traces((run.trace, *experience.traces)):
            log.add(traces=list(traces))
        _log.info(
            "retraining started", detector=detector.name, why=self._why, vectors=experience.n,
            champion=experience.champion, attempt=run.attempts + 1,
        )  # fmt: skip
        try:
            anchor = await self._anchor(experience)
            experience = await asyncio.to_thread(
                experience.derived, detector.config, detector.chosen
            )
            artifact = await self._train(detector, experience, run, anchor)
            candidate = await self._examine(detector, experience, artifact, anchor)
            crash_points.passage("worker.trained")
            await self._write_outcome(experience, candidate)
        except TrainingError as error:
            return await self._failed(experience, str(error))
        except (StoreUnavailable, Fenced):
            raise
        except Exception as error:  # noqa: BLE001 - after three failures later data is learned
            _log.exception("training failed unexpectedly", detector=detector.name)
            return await self._failed(experience, _reason(error))
        crash_points.passage("worker.after_promote")
        return True

    async def _anchor(self, experience: Experience) -> int | None:
        """Return the anchor: the older version with which the gate compares the candidate too."""
        registry, champion = self.tools.stores.registry, experience.champion
        if champion is None or not (record := await registry.record(experience.name, champion)):
            return None
        anchor = await registry.record(experience.name, record.record.anchor_of_successors)
        if anchor is None or not await registry.intact(experience.name, anchor.record):
            return champion  # the anchor may be pruned after a rollback, or damaged in the store
        return anchor.record.version

    async def _train(
        self, detector: Detector, experience: Experience, run: StartedRun, anchor: int | None
    ) -> bytes:
        """Return the artifact of the trained version. Raises TrainingError if training fails."""
        previous = anchor_artifact = None
        if experience.champion is not None:
            previous = await self._artifact(experience.champion)
        if anchor is not None and anchor != experience.champion:
            anchor_artifact = await self._artifact(anchor)
        labels = await latest_labels(self.tools.stores.labels, detector)
        n, d = experience.vectors.shape
        job = Job(
            previous=previous,
            vectors=bytearray(experience.vectors.data.cast("B")),
            n=n,
            d=d,
            config=await self._config_with_words(detector, experience),
            weights=run.weights,
            artifact_max_bytes=self.tools.settings.artifact_max_bytes,
            labelled_rows=labels.vectors.tobytes() if labels else b"",
            anomalous=labels.anomalous.tobytes() if labels else b"",
            anchor=anchor_artifact,
            vouched=await self._labelled_normal(experience),
        )
        self._training_began = time.monotonic()
        return await self.tools.trainer.train(job, self._note_progress)

    async def _config_with_words(self, detector: Detector, experience: Experience) -> JsonObject:
        """Return the config with the words that its categories have in the experience."""
        config = resolved(detector.config, experience.chosen or detector.chosen)
        if config.words:
            known = await self.tools.stores.words.all(experience.name)
            config = worded(config, experience.vectors, known)
        return config.to_dict()

    async def _labelled_normal(self, experience: Experience) -> bytes:
        """Return one byte for each row, 1 if a person labelled it normal. b'' if there is none."""
        labels = await self.tools.stores.labels.all(experience.name)
        batches = {label.batch for label in labels if label.label == "normal" and label.batch}
        marks = [part.batch in batches for part in experience.parts]
        if not any(marks):
            return b""
        rows = np.repeat(marks, [part.vectors for part in experience.parts])
        return (rows if experience.kept is None else rows[experience.kept]).tobytes()

    async def _artifact(self, number: int) -> bytes:
        """Return the artifact of a parent. Raises TrainingError if its signature is not valid."""
        signer, name = self.tools.signer, self.lease.name
        artifact = await self.tools.stores.registry.artifact(name, number)
        if artifact is None:
            raise TrainingError(f"the artifact of version {number} is gone")
        if signer.required:
            try:
                stored = await self.tools.stores.registry.record(name, number)
                signer.check(name, artifact, stored.record.signature if stored else None)
            except ArtifactError as error:
                raise TrainingError(f"version {number}: {error}") from None
        return artifact

    def _note_progress(self, progress: Progress) -> None:
        crash_points.passage("worker.training")
        fraction, took = progress.fraction, time.monotonic() - self._training_began
        left = took / fraction * (1.0 - fraction) if fraction >= _LEAST_SHARE else None
        self._keeper.progress = TrainingProgress(
            fraction, left, progress.loss_old, progress.loss_new
        )

    async def _examine(
        self, detector: Detector, experience: Experience, artifact: bytes, anchor: int | None
    ) -> _Candidate:
        """Verify the artifact and apply the gate. Raises TrainingError if it is not intact."""
        trained = time.monotonic() - self._began
        try:
            # The worker verifies what the trainer made. A thread does it, so that the event loop
            # can renew the lease.
            version = await asyncio.to_thread(
                Version.from_bytes, artifact, max_bytes=self.tools.settings.artifact_max_bytes
            )
        except ArtifactError as error:
            raise TrainingError(f"the trained version is not intact: {error}") from error
        labels = await labels_for_threshold(self.tools.stores.labels, detector)
        evidence, policy = version.lineage.evidence, detector.config.gate
        live = None
        verdict = gate(evidence)
        shadow, champion = detector.config.retrain.shadow, experience.champion
        if shadow and champion is not None and verdict.passed:
            live = await self._shadow(detector, champion, version, labels)
            verdict = gate(evidence, shadow=live)
        shown = GateEvidence(**msgspec.structs.asdict(evidence), shadow=live)
        total = time.monotonic() - self._began
        oldest = detector.buffer_oldest or time.time()
        record = msgspec.structs.replace(
            await asyncio.to_thread(describe, version, detector.config.threshold, labels),
            who=f"worker:{self.tools.worker}",
            gate=GateRecord(policy, verdict.passed, tuple(verdict.reasons), shown),
            anchor=anchor,
            trigger=self._why,
            labelled=labelled_outcome(version.lineage.evidence),
            context=experience.chosen or detector.chosen or UNSET,
            timings=Timings(max(0.0, time.time() - total - oldest), trained, total),
            **self.tools.signer.sign(detector.name, artifact),
        )
        return _Candidate(artifact, record, total, verdict.passed or policy == "report")

    async def _shadow(
        self, detector: Detector, champion: int, candidate: Version, labels: Labels | None
    ) -> ShadowResult:
        """Return how champion and candidate score live traffic, once there is enough of it."""
        X = await shadow_scoring.sample(self.tools.stores.live, detector)
        artifact, most = await self._artifact(champion), self.tools.settings.artifact_max_bytes

        def comparison() -> ShadowResult:
            previous = Version.from_bytes(artifact, max_bytes=most)
            return shadow_scoring.compare(candidate, previous, detector, labels, X)

        return await asyncio.to_thread(comparison)

    async def _write_outcome(self, experience: Experience, candidate: _Candidate) -> None:
        """Write the outcome. Raises Fenced, or StoreUnavailable once the lease has ended.

        While the store could lose acknowledged writes, the candidate waits: a promotion deletes
        the experience, so the store must not lose the version.
        """
        record, seconds = candidate.record, candidate.seconds
        self._keeper.settling = True
        crash_points.passage("worker.before_promote")
        self.tools.durability.check_at_once()
        while True:
            try:
                await self.tools.durability.check(self.tools.stores.redis)
                number = await self.tools.stores.registry.settle(
                    self.lease, experience, candidate.artifact, record, seconds=seconds,
                    promoted=candidate.accepted,
                )  # fmt: skip
                break
            except WeakStore:  # it was logged
                await asyncio.sleep(_WEAK_SECONDS)
            except StoreUnavailable:
                # The write may have succeeded. Then the cursor has moved and a repeat is refused.
                if self.lease.expired:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
        _log.info(
            "promoted" if candidate.accepted else "rejected", detector=experience.name,
            version=number, seconds=round(seconds, 2), reasons=list(record.reasons),
        )  # fmt: skip

    async def _failed_unread(self, reason: str) -> bool:
        """Count the failed attempt without the rows, since to read them may be what fails."""
        try:
            unread = await self.tools.stores.buffer.take(self.lease.name, rows=False)
        except DamagedBuffer as damage:
            return await self._failed(None, str(damage))
        return unread is not None and await self._failed(unread, reason)

    async def _failed(self, experience: Experience | None, reason: str) -> bool:
        """Count the failed attempt. After the last one, park what could be read; return True."""
        failed = await self.tools.stores.retrainings.attempt_failed(self.lease)
        _log.warning("training failed", detector=self.lease.name, why=reason, attempt=failed)
        if failed < ATTEMPTS:
            return False
        self._keeper.settling = True
        seconds = time.monotonic() - self._began
        if experience is None:
            await self.tools.stores.retrainings.end_unread(self.lease, reason, seconds=seconds)
        else:
            await self.tools.stores.registry.park(self.lease, experience, reason, seconds=seconds)
        return True


def _reason(error: Exception) -> str:
    memory = isinstance(error, MemoryError)
    return "not enough memory in the worker" if memory else f"{type(error).__name__}: {error}"
