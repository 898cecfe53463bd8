"""Champions on disk are read back unchanged, or not at all."""

import hashlib
import os
import time

import orjson
import pytest

from models import ArtifactError
from models.version import version
from service.swap.artifacts import Artifacts
from service.swap.disk_cache import KEPT_SECONDS, DiskCache
from tests.service.trained import champion

MAX = 2**24


def store_champion(folder, **fields):
    """Store one champion; return the cache and the file."""
    cache = DiskCache(folder, Artifacts(MAX))
    cache.keep(champion(**fields))
    return cache, folder / "pump.champion"


def test_a_champion_is_restored_from_disk_unchanged(tmp_path):
    """Pointer, threshold and scores are those that were served."""
    cache, file = store_champion(tmp_path / "new", generation=7)
    (restored,) = list(cache.restore())
    was = champion(generation=7)
    fields = (restored.name, restored.uid, restored.number, restored.generation)
    assert fields == ("pump", "u", 1, 7)
    assert restored.threshold == was.threshold
    X = was.version.sample(20, seed=1)
    assert (restored.version.score(X) == was.version.score(X)).all()
    assert file.parent.stat().st_mode & 0o077 == 0


def test_only_the_latest_of_a_detector_is_kept(tmp_path):
    """A newer champion replaces the file, and no other file is left."""
    cache, file = store_champion(tmp_path)
    cache.keep(champion(2))
    assert [champion.number for champion in list(cache.restore())] == [2]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("where", [0, 20, -1])
def test_a_damaged_copy_is_not_served(tmp_path, where):
    """With one changed byte, in the line or in the artifact, a copy is not served."""
    cache, file = store_champion(tmp_path)
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    assert list(cache.restore()) == []


def test_only_bytes_that_this_process_verified_pass_unchecked(tmp_path, monkeypatch):
    """A file that this process wrote is loaded without checks; any other is verified."""
    cache, file = store_champion(tmp_path)
    other = DiskCache(tmp_path, Artifacts(MAX))

    def refuse(*_):
        raise ArtifactError("checked")

    with monkeypatch.context() as patched:
        patched.setattr(version, "exercise", refuse)
        assert cache.find("pump").number == 1
        assert other.find("pump") is None
        cache.keep(champion(2))
        about = orjson.loads(file.read_bytes().partition(b"\n")[0])
        artifact = champion(1).version.with_lineage(seed=7).to_bytes()
        about["sha256"] = hashlib.sha256(artifact).hexdigest()
        file.write_bytes(orjson.dumps(about) + b"\n" + artifact)
        assert cache.find("pump") is None
    assert cache.find("pump").version.lineage.seed == 7


def test_a_copy_under_another_name_is_not_served(tmp_path):
    """A copy under another detector's name is not served."""
    cache, file = store_champion(tmp_path)
    file.rename(tmp_path / "other.champion")
    assert list(cache.restore()) == []


def test_a_file_larger_than_an_artifact_is_not_read(tmp_path):
    """The size bound of artifacts holds for their copies."""
    _, file = store_champion(tmp_path)
    file.write_bytes(file.read_bytes() + bytes(2 * MAX))
    assert list(DiskCache(tmp_path, Artifacts(1024)).restore()) == []


def test_old_copies_of_unknown_detectors_are_pruned(tmp_path):
    """Copies of unknown detectors are pruned once they are old; those of known ones stay."""
    cache, file = store_champion(tmp_path)
    cache.prune(set())
    old = time.time() - KEPT_SECONDS - 1
    os.utime(file, (old, old))
    cache.prune({"pump"})
    assert file.exists()
    cache.prune(set())
    assert not file.exists()


def test_a_deleted_detector_is_forgotten(tmp_path):
    """The copy of a deleted detector is removed; repeating this does nothing."""
    cache, file = store_champion(tmp_path)
    cache.forget("pump")
    cache.forget("pump")
    assert not file.exists()


def test_without_a_folder_nothing_is_kept():
    """Without the setting nothing is stored."""
    cache = DiskCache(None, Artifacts(MAX))
    cache.keep(champion())
    cache.forget("pump")
    cache.prune(set())
    assert list(cache.restore()) == []


def test_a_disk_that_fails_is_an_os_error(tmp_path):
    """An error of the disk is an OSError, which the caller tolerates."""
    (tmp_path / "file").touch()
    cache = DiskCache(tmp_path / "file", Artifacts(MAX))
    with pytest.raises(OSError, match="File exists"):
        cache.keep(champion())
    assert list(cache.restore()) == []


def test_a_parent_that_was_moved_away_is_not_made_again(tmp_path):
    """A data directory that was moved away can be put back: nothing takes its place."""
    cache = DiskCache(tmp_path / "data" / "champions", Artifacts(MAX))
    cache.keep(champion())
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        cache.keep(champion())
    assert not (tmp_path / "data").exists()


def test_foreign_files_are_not_pruned(tmp_path):
    """A foreign file with the name of a copy is not pruned."""
    cache = DiskCache(tmp_path, Artifacts(MAX))
    cache.keep(champion())
    (tmp_path / "notes.champion").write_text("a list of champions")
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    cache.prune(set())
    assert [file.name for file in tmp_path.iterdir()] == ["notes.champion"]
