"""Takes normal batches from the request to the buffer."""

from msgspec.structs import replace

from service import crash_points
from service.api import admission_check
from service.api.admission_check import Admission
from service.api.alarmed_rows import AlarmedRows
from service.domain.admission import AdmissionVerdict
from service.domain.detector import NAME, Detector, template_of
from service.domain.detector_config import DetectorConfig
from service.domain.ingested import Ingested
from service.domain.words import SEEN
from service.problems import Problem, StoreUnavailable, UnknownDetector
from service.scoring.champions import Champions
from service.scoring.request_rows import NormalRows
from service.store.adapters import Stores
from service.store.buffer import SenderShareExceeded
from service.swap.watcher import Watcher
from service.telemetry.metrics import Metrics


class Ingest:
    """Stores normal batches: makes a new entity's detector, judges the batch and buffers it."""

    def __init__(
        self,
        stores: Stores,
        champions: Champions,
        watcher: Watcher,
        metrics: Metrics,
        alarmed: AlarmedRows,
    ) -> None:
        self._stores = stores
        self._admission = Admission(champions, stores.held, alarmed)
        self._champions = champions
        self._watcher = watcher
        self._metrics = metrics

    async def config(self, name: str) -> DetectorConfig:
        """Return the config with which a batch is read.

        It is the detector's config, or the template's for a new entity. Raises UnknownDetector if
        there is neither.
        """
        try:
            return (await self._detector(name)).row_config
        except UnknownDetector:
            return await self._template(name)

    async def _template(self, name: str) -> DetectorConfig:
        """Return the config of the entity's template. Raises UnknownDetector if there is none."""
        template = template_of(name) if NAME.fullmatch(name) else None
        config = None if template is None else await self._stores.templates.get(template)
        if config is None:
            raise UnknownDetector()
        return config

    async def _make_if_new(self, name: str, sender: str | None) -> None:
        """Make the detector of a new entity. Raises Conflict if there are too many entities."""
        if self._champions.detector(name) is None and template_of(name) is not None:
            config = await self._template(name)
            who = f"key:{sender}" if sender else ""
            await self._stores.detectors.create_entity(name, config, who=who)
            await self._watcher.refresh(name)

    async def _detector(self, name: str) -> Detector:
        """Return the detector. Its dimension is known unless it has no vectors at all.

        Raises UnknownDetector.
        """
        self._watcher.health.check_writable()
        detector = self._champions.detector(name) or await self._watcher.look_up(name)
        if detector is None:
            raise UnknownDetector()
        if detector.champion is not None and self._champions.get(name) is None:
            await self._watcher.ensure_known(name)  # admission needs the champion
        if detector.dimension is None:
            # Another process may have stored the first batch.
            detector = await self._watcher.refresh(name) or detector
        return detector

    async def store(
        self,
        name: str,
        rows: NormalRows,
        key: str | None,
        *,
        sender: str | None = None,
        judged: bool = True,
    ) -> Ingested:
        """Store a batch durably and return the answer.

        Admission judges the batch, except rows that a person labelled (`judged` is False) and rows
        that wait for their context. Rows that alarmed earlier are held back unless they are
        vouched for.
        """
        X = rows.model.X
        if judged:
            await self._make_if_new(name, sender)
        detector = self._champions.detector(name)
        if detector is not None and detector.config.words:
            known = SEEN.words_in(X, detector.row_config)
            await self._stores.words.add(name, detector.uid, known)
        verdict = None
        if judged and rows.sent.details is None:
            verdict = await self._admission.judge(name, X, vouched=rows.vouched)
        crash_points.passage("api.before_buffer_write")
        try:
            stored = await self._write(name, rows, key, sender, verdict, labelled=not judged)
        except StoreUnavailable:
            raise
        except Problem:
            self._count(name, rejected=len(X))
            raise
        crash_points.passage("api.after_buffer_write")
        if stored.duplicate:
            self._count(name, duplicate=stored.duplicate)
        else:
            self._count(name, accepted=stored.accepted, quarantined=stored.quarantined)
        if stored.quarantined and verdict is not None:
            return replace(stored, why=verdict.reason)
        return stored

    def _count(self, name: str, **vectors: int) -> None:
        # If counting fails, the answer is still that the batch is stored.
        with self._metrics.side_work.part("metrics"):
            for outcome, n in vectors.items():
                self._metrics.ingested(name, outcome, n)

    async def _write(
        self,
        name: str,
        rows: NormalRows,
        key: str | None,
        sender: str | None,
        verdict: AdmissionVerdict | None,
        *,
        labelled: bool,
    ) -> Ingested:
        detector = self._champions.detector(name)
        auto = detector is not None and detector.config.context == "auto"

        async def ingest(verdict: AdmissionVerdict | None) -> Ingested:
            return await self._stores.buffer.ingest(
                name,
                rows.model.X,
                idempotency_key=key,
                sender=sender,
                verdict=verdict,
                labelled=labelled,
                sent=rows.sent if auto else None,
                trace=rows.trace,
            )

        try:
            return await ingest(verdict)
        except SenderShareExceeded:
            assert verdict is not None  # without a verdict no row is novel
            return await ingest(admission_check.hold_all(verdict))
