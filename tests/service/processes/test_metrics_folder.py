"""The folder of metrics belongs to one supervisor, and no foreign file is removed."""

import os
from pathlib import Path

import pytest

from service.processes.metrics_folder import MetricsFolder


def test_only_files_of_api_processes_are_removed(tmp_path: Path) -> None:
    """Files of API processes are removed; all other files stay, in the folder and beside it."""
    (tmp_path / "notes.db").touch()
    (tmp_path / "counter_1.db").touch()
    folder = MetricsFolder(tmp_path)
    assert folder.path is not None
    assert folder.path.parent == tmp_path
    for name in ("anamnesis-0-total.names", "anamnesis-11-live.values"):
        (folder.path / name).touch()
    folder.close()
    assert {file.name for file in tmp_path.iterdir()} == {"notes.db", "counter_1.db"}


def test_a_folder_with_a_foreign_file_stays(tmp_path: Path) -> None:
    """A folder with a foreign file is not removed."""
    folder = MetricsFolder(tmp_path)
    assert folder.path is not None
    for name in ("anamnesis-0-notes.db", "anamnesis-x-total.names"):
        (folder.path / name).touch()
    folder.close()
    assert len(list(folder.path.iterdir())) == 2


def test_two_supervisors_have_a_folder_each(tmp_path: Path) -> None:
    """A second supervisor does not treat the first one's folder as left behind."""
    first, second = MetricsFolder(tmp_path), MetricsFolder(tmp_path)
    assert first.path is not None
    assert first.path != second.path
    assert first.path.is_dir()
    first.close()
    second.close()


def test_folders_of_killed_supervisors_are_removed(tmp_path: Path) -> None:
    """Folders of killed supervisors are removed."""
    left_behind = MetricsFolder(tmp_path)
    assert left_behind.path is not None
    (left_behind.path / "anamnesis-0-total.values").touch()
    assert left_behind._lock is not None
    os.close(left_behind._lock)
    folder = MetricsFolder(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.path]
    folder.close()


@pytest.mark.parametrize("place", [0, 1])
def test_gauges_of_a_dead_process_are_removed(tmp_path: Path, place: int) -> None:
    """Gauges of a dead process are removed; those of others stay, and so do all counters."""
    folder = MetricsFolder(tmp_path)
    assert folder.path is not None
    for n in (0, 1):
        for life in ("live", "total"):
            (folder.path / f"anamnesis-{n}-{life}.values").touch()
    folder.ended(place)
    files = {file.name for file in folder.path.iterdir()}
    assert f"anamnesis-{place}-live.values" not in files
    assert len(files) == 4  # with the lock
    folder.close()


def test_a_temporary_folder_replaces_an_unusable_one(tmp_path: Path) -> None:
    """If the parent folder cannot be used, the folder is among the temporary files."""
    (tmp_path / "file").touch()
    folder = MetricsFolder(tmp_path / "file")
    assert folder.path is not None
    assert folder.path.parent != tmp_path
    folder.close()
