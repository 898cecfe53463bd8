"""Loads versions from the store: fetches, verifies and warms them up, so that they can serve."""

import asyncio
import hashlib
from typing import NamedTuple

import numpy as np

from models import ArtifactError, Version
from models.parts.calibration import Threshold
from models.parts.labels import Labels
from service.domain.champion import LoadedVersion, ServingOptions
from service.domain.detector import Detector, Pointer
from service.domain.detector_config import DetectorConfig
from service.domain.inline_bounds import InlineBounds
from service.problems import Gone, no_such
from service.scoring.cost import affordable_rows, inline_bounds
from service.signatures import Signer
from service.store.registry import Registry
from service.swap.artifacts import Artifacts

_BASE_BYTES, _TIMES = 32 * 1024, 4  # measured: 1.2 MB for an artifact of 358 kB


class FetchedVersion(NamedTuple):
    """A version from the store or from the disk.

    `artifact` are the bytes from the store. `copied` is the champion of the copy on disk.
    """

    loaded: LoadedVersion
    artifact: bytes | None = None
    copied: Pointer | None = None


async def load(
    registry: Registry, detector: Detector, number: int, artifacts: Artifacts, signer: Signer
) -> FetchedVersion:
    """Return a version of `detector`, verified against its record and signature.

    Raises Unknown, Gone if its artifact was pruned, ArtifactError if the artifact is not valid,
    and StoreUnavailable.
    """
    stored = await registry.record(detector.name, number)
    if stored is None:
        raise no_such("version", ".../versions")
    data = await registry.artifact(detector.name, number)
    if data is None:
        raise Gone()
    record = stored.record
    signer.check(detector.name, data, record.signature)
    version = await asyncio.to_thread(artifacts.open, data, record.sha256)
    if detector.dimension not in (None, version.dimension):
        raise ArtifactError("the artifact is of another dimension than the detector")
    digest = record.sha256 or hashlib.sha256(data).hexdigest()
    trained_at, size = record.created / 1000, memory_bytes(data)
    return FetchedVersion(LoadedVersion(version, trained_at, digest, size, record.signature), data)


def memory_bytes(artifact: bytes) -> int:
    """Return about how many bytes of memory a version takes, derived from its artifact's size."""
    return _BASE_BYTES + _TIMES * len(artifact)


def prepared(
    version: Version,
    config: DetectorConfig,
    labels: Labels | None = None,
    inline: InlineBounds | None = None,
) -> ServingOptions:
    """Return how `version` serves under `config`: its threshold and the cost of its calls.

    The cost is measured unless it is given as `inline`. Raises ArtifactError if scoring fails, and
    MemoryError.
    """
    try:
        threshold = version.threshold_for(config.threshold, labels)
        sample = version.sample(1, seed=0)
        version.judge(sample, threshold)
        if version.config.missing == "impute" and version.dimension > 1:
            sample[0, 0] = np.nan
            version.judge(sample, threshold)
        inline = inline or measure_cost(version, threshold)
    except MemoryError:
        raise
    # Whatever the error, the present version and the other detectors must go on serving.
    except Exception as error:
        raise ArtifactError(f"the version cannot be used: {error}") from error
    return ServingOptions(threshold, labels, config.rules, inline)


def measure_cost(version: Version, threshold: Threshold) -> InlineBounds:
    """Measure scoring, and return the largest bodies that may be scored in the event loop."""
    sample = version.sample(1, seed=0)
    rows = affordable_rows(lambda n: version.judge(np.repeat(sample, n, axis=0), threshold))
    return inline_bounds(version.dimension, rows)
