"""Champions kept on disk: read back as they were, or not at all."""

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


def kept(folder, **fields):
    """Keep one champion; return its cache and its file."""
    cache = DiskCache(folder, Artifacts(MAX))
    cache.keep(champion(**fields))
    return cache, folder / "pump.champion"


def test_a_kept_champion_comes_back_as_it_was(tmp_path):
    """Pointer, threshold and scores are those that were served."""
    cache, file = kept(tmp_path / "new", generation=7)
    (found,) = list(cache.restore())
    was = champion(generation=7)
    assert (found.name, found.uid, found.number, found.generation) == ("pump", "u", 1, 7)
    assert found.threshold == was.threshold
    X = was.version.sample(20, seed=1)
    assert (found.version.score(X) == was.version.score(X)).all()
    assert file.parent.stat().st_mode & 0o077 == 0


def test_only_the_latest_of_a_detector_is_kept(tmp_path):
    """A file is replaced; nothing else is left in the folder."""
    cache, file = kept(tmp_path)
    cache.keep(champion(2))
    assert [one.number for one in list(cache.restore())] == [2]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("where", [0, 20, -1])
def test_a_damaged_copy_is_left_out(tmp_path, where):
    """One changed byte, of the line or of the artifact, and it is not served."""
    cache, file = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    assert list(cache.restore()) == []


def test_only_bytes_that_this_process_verified_pass_unchecked(tmp_path, monkeypatch):
    """What it kept is built at once; another process, or other bytes, are checked whole."""
    cache, file = kept(tmp_path)
    other = DiskCache(tmp_path, Artifacts(MAX))

    def refuse(*_):
        raise ArtifactError("checked")

    with monkeypatch.context() as patched:
        patched.setattr(version, "exercise", refuse)
        assert cache.find("pump").number == 1
        assert other.find("pump") is None
        cache.keep(champion(2))
        about = orjson.loads(file.read_bytes().partition(b"\n")[0])
        again = champion(1).version.recorded(seed=7).to_bytes()
        about["sha256"] = hashlib.sha256(again).hexdigest()
        file.write_bytes(orjson.dumps(about) + b"\n" + again)
        assert cache.find("pump") is None
    assert cache.find("pump").version.lineage.seed == 7


def test_a_copy_under_another_name_is_left_out(tmp_path):
    """A file says itself whose it is."""
    cache, file = kept(tmp_path)
    file.rename(tmp_path / "other.champion")
    assert list(cache.restore()) == []


def test_a_file_larger_than_an_artifact_is_not_read(tmp_path):
    """The bound of artifacts holds for copies of them."""
    _, file = kept(tmp_path)
    file.write_bytes(file.read_bytes() + bytes(2 * MAX))
    assert list(DiskCache(tmp_path, Artifacts(1024)).restore()) == []


def test_old_copies_of_unknown_detectors_are_pruned(tmp_path):
    """Known ones stay however old they are, and unknown ones while they are young."""
    cache, file = kept(tmp_path)
    cache.prune(set())
    old = time.time() - KEPT_SECONDS - 1
    os.utime(file, (old, old))
    cache.prune({"pump"})
    assert file.exists()
    cache.prune(set())
    assert not file.exists()


def test_a_deleted_detector_is_forgotten(tmp_path):
    """Its copy goes; a second time there is nothing to do."""
    cache, file = kept(tmp_path)
    cache.forget("pump")
    cache.forget("pump")
    assert not file.exists()


def test_without_a_folder_nothing_is_kept():
    """The setting is optional."""
    cache = DiskCache(None, Artifacts(MAX))
    cache.keep(champion())
    cache.forget("pump")
    cache.prune(set())
    assert list(cache.restore()) == []


def test_a_disk_that_fails_is_an_os_error(tmp_path):
    """What a copy meets is for the caller to tolerate."""
    (tmp_path / "file").touch()
    cache = DiskCache(tmp_path / "file", Artifacts(MAX))
    with pytest.raises(OSError, match="File exists"):
        cache.keep(champion())
    assert list(cache.restore()) == []


def test_only_files_of_ours_are_pruned(tmp_path):
    """An old file that merely has the name of a copy stays."""
    cache = DiskCache(tmp_path, Artifacts(MAX))
    cache.keep(champion())
    (tmp_path / "notes.champion").write_text("a list of champions")
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    cache.prune(set())
    assert [file.name for file in tmp_path.iterdir()] == ["notes.champion"]
