"""Keeps champions on this machine's disk, so that a process can score while the store is away.

Each detector has one file, which is always replaced as a whole. It has a line of JSON that
describes the champion, then the artifact as the store has it. It is verified like any other
artifact, its signature included.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from models import AnamnesisError, ArtifactError
from models.parts.calibration import Threshold
from service import log
from service.domain.champion import Champion, LoadedVersion, ServingOptions
from service.domain.detector import NAME, Pointer
from service.domain.detector_config import configured, parse
from service.signatures import Signer
from service.swap.artifacts import Artifacts
from service.swap.loader import FetchedVersion, measure_cost, memory_bytes

_log = log.get(__name__)

FORMAT = 4
# Format 2 lacks the state of the store. Format 3 lacks the signature, and its artifact has the
# option `missing` of the detector already.
READABLE = (2, 3, 4)
KEPT_SECONDS = 30 * 24 * 3600  # a copy of a detector that the store does not know is kept so long
_SUFFIX = ".champion"
_LINE_BYTES = 64 * 1024  # most bytes of the line before the artifact


class DiskCache:
    """The champions in `folder`. If it is None, nothing is kept and nothing is found.

    All methods wait for the disk, so call them in a thread. Several processes may share a folder.
    """

    def __init__(
        self, folder: Path | None, artifacts: Artifacts, signer: Signer | None = None
    ) -> None:
        self._folder = folder
        self._artifacts = artifacts
        self._signer = signer or Signer()
        if folder is not None:
            # Only at the start: a data directory that was moved away must not be made again later,
            # or it could not be put back.
            with contextlib.suppress(OSError):
                folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, champion: Champion, artifact: bytes | None = None) -> None:
        """Keep `champion` with its threshold. Raises OSError if the disk fails.

        `artifact` is the artifact of its version. If it is None, it is taken from the copy on disk,
        and if that has another version, the version is encoded again.
        """
        if self._folder is None:
            return
        artifact = artifact or self._kept(champion) or champion.version.to_bytes()
        digest = hashlib.sha256(artifact).hexdigest()
        about = {
            "format": FORMAT,
            "name": champion.name,
            "uid": champion.uid,
            "number": champion.number,
            "generation": champion.generation,
            "config_revision": champion.config_revision,
            "threshold": asdict(champion.threshold),
            "trained_at": champion.trained_at,
            "sha256": digest,
            "stored_sha256": champion.sha256,
            "stored": list(champion.stored) if champion.stored else None,
            "rules": champion.rules.to_dict(),
            "missing": champion.version.config.missing,
            "signature": champion.signature,
        }
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _replace(self._path(champion.name), orjson.dumps(about) + b"\n" + artifact)
        self._artifacts.trust(digest)

    def forget(self, name: str) -> None:
        """Delete the copy of a deleted detector. Raises OSError."""
        if self._folder is not None:
            self._path(name).unlink(missing_ok=True)

    def prune(self, known: Collection[str]) -> None:
        """Delete old copies of detectors that are not `known`.

        Recent copies stay: if the store has lost all its data, they are all that is left. Files
        that this class did not write stay too. Raises OSError.
        """
        oldest = time.time() - KEPT_SECONDS
        for path in self._paths():
            name = path.name.removesuffix(_SUFFIX)
            if name not in known and path.stat().st_mtime < oldest and _is_ours(path, name):
                path.unlink(missing_ok=True)

    def restore(self) -> Iterator[Champion]:
        """Yield every intact champion, the latest first. Damaged copies are logged."""
        paths = sorted(self._paths(), key=lambda path: -path.stat().st_mtime)
        for path in paths:
            stored = self.find(path.name.removesuffix(_SUFFIX))
            if stored is not None:
                yield stored

    def find(self, name: str) -> Champion | None:
        """Return the copy of one detector's champion, None if there is no intact copy."""
        if self._folder is None:
            return None
        try:
            return self._read_champion(self._path(name))
        except FileNotFoundError:
            return None
        except (AnamnesisError, OSError, ValueError, KeyError, TypeError) as error:
            _log.error("loading a champion's copy from disk failed", detector=name, why=repr(error))
            return None

    def find_version(
        self, name: str, uid: str, number: int, sha256: str | None
    ) -> FetchedVersion | None:
        """Return the copy of exactly this version, None if there is none."""
        if self._folder is None or sha256 is None:
            return None
        try:
            about, artifact = self._read_parts(self._path(name))
            if (about["uid"], about["number"], about.get("stored_sha256")) != (uid, number, sha256):
                return None
            self._signer.check(name, artifact, about.get("signature"))
            version = self._artifacts.open(artifact, about["sha256"])
            copied = Pointer(*about["stored"]) if about["stored"] else None
        except (AnamnesisError, OSError, ValueError, KeyError, TypeError):
            return None  # the store has it
        size, signature = memory_bytes(artifact), about.get("signature")
        loaded = LoadedVersion(version, about["trained_at"], sha256, size, signature)
        return FetchedVersion(loaded, copied=copied)

    def _kept(self, champion: Champion) -> bytes | None:
        """Return the artifact of `champion` if this machine's disk has it as the store does."""
        try:
            _, artifact = self._read_parts(self._path(champion.name))
        except (AnamnesisError, OSError, ValueError, KeyError, TypeError):
            return None
        return artifact if hashlib.sha256(artifact).hexdigest() == champion.sha256 else None

    def _read_parts(self, path: Path) -> tuple[dict[str, Any], bytes]:
        if path.stat().st_size > self._artifacts.max_bytes + _LINE_BYTES:
            raise ArtifactError("the file is larger than an artifact may be")
        line, _, artifact = path.read_bytes().partition(b"\n")
        about: dict[str, Any] = orjson.loads(line)
        if about["format"] not in READABLE or about["name"] + _SUFFIX != path.name:
            raise ArtifactError("the file belongs to another detector than its name says")
        return about, artifact

    def _read_champion(self, path: Path) -> Champion:
        about, artifact = self._read_parts(path)
        number, sha256 = about["number"], about.get("stored_sha256")
        # Files of the first release have neither the state of the store nor the detector's rules.
        known = about.get("stored") or [
            about["uid"], number, about["generation"], about["config_revision"]
        ]  # fmt: skip
        self._signer.check(about["name"], artifact, about.get("signature"))
        version = self._artifacts.open(artifact, about["sha256"])
        missing = about.get("missing", version.config.missing)
        config = parse((about.get("rules") or {}) | {"missing": missing})
        version = configured(version, config)
        threshold = Threshold(**about["threshold"])
        inline = self._artifacts.cost(sha256, version.config.missing)
        options = ServingOptions(
            threshold,
            rules=config.rules,
            inline=inline or measure_cost(version, threshold),
        )
        size, signature = memory_bytes(artifact), about.get("signature")
        loaded = LoadedVersion(version, about["trained_at"], sha256, size, signature)
        return Champion.of(about["name"], number, Pointer(*known), loaded, options)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        assert NAME.fullmatch(name)
        return self._folder / f"{name}{_SUFFIX}"

    def _paths(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob(f"*{_SUFFIX}"))


def _is_ours(path: Path, name: str) -> bool:
    with path.open("rb") as file, contextlib.suppress(ValueError):
        about = orjson.loads(file.readline(_LINE_BYTES))
        return isinstance(about, dict) and about.get("name") == name and "sha256" in about
    return False


def _replace(path: Path, content: bytes) -> None:
    """Write `path` completely or not at all, even if the process is killed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
