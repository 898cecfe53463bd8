"""From the store's bytes to a version that may serve: fetched, verified, warmed up."""

import asyncio
import hashlib
from typing import NamedTuple

import numpy as np

from models import ArtifactError, Version
from models.config import Policy
from models.parts.calibration import Threshold
from models.parts.labels import Labels
from service.domain.detector import Detector
from service.problems import Gone, Unknown
from service.signatures import Seal
from service.store.registry import Registry
from service.timestamps import unix_seconds


class Loaded(NamedTuple):
    """A verified version, when it was made, and the sha256 of its artifact."""

    version: Version
    trained_at: float | None
    sha256: str | None


async def load(
    registry: Registry, detector: Detector, number: int, max_bytes: int, seal: Seal
) -> Loaded:
    """Return a version of `detector`, verified against its record and seal.

    Raises Unknown, Gone when its artifact was pruned, ArtifactError when that is not what it
    should be, and StoreUnavailable.
    """
    record = await registry.record(detector.name, number)
    if record is None:
        raise Unknown("There is no such version.")
    data = await registry.artifact(detector.name, number)
    if data is None:
        raise Gone("The version was pruned: its artifact is no longer kept.")
    seal.check(detector.name, data, record)
    version = await asyncio.to_thread(_verified, data, record.get("sha256"), max_bytes)
    if detector.dimension not in (None, version.dimension):
        raise ArtifactError("the artifact is of another dimension than the detector")
    digest = record.get("sha256") or hashlib.sha256(data).hexdigest()
    return Loaded(version, unix_seconds(record.get("created_at")), digest)


def prepared(version: Version, policy: Policy, labels: Labels | None = None) -> Threshold:
    """Return the threshold of `version` under `policy`, after a first, slow, call of its model.

    Raises ArtifactError where the model cannot be called.
    """
    try:
        threshold = version.threshold_for(policy, labels)
        sample = version.sample(1, seed=0)
        version.judge(sample, threshold)
        if version.config.missing == "impute" and version.dimension > 1:
            sample[0, 0] = np.nan
            version.judge(sample, threshold)
    # Whatever it is, the version that serves now must go on, and so must the other detectors.
    except Exception as error:
        raise ArtifactError(f"the version cannot be used: {error}") from error
    return threshold


def _verified(data: bytes, sha256: str | None, max_bytes: int) -> Version:
    if len(data) <= max_bytes and sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError("the artifact is not the one that its record names")
    return Version.from_bytes(data, max_bytes=max_bytes)
