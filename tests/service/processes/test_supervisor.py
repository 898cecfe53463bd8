"""Supervision: children are restarted after growing pauses and stopped in order."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from service.processes import spawn
from service.processes.child import Child, Restarts
from service.processes.embedded_store import EmbeddedStore
from service.processes.metrics_folder import MetricsFolder
from service.processes.supervisor import StartupFailed, Supervisor, _bind
from service.processes.training_device import unusable_device
from service.processes.wakeups import wakeups
from service.settings import Settings
from tests.waiting import alive, wait_for

_IDLE = "import time; time.sleep(60)"
_STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open(sys.argv[1], 'w').close(); time.sleep(60)"
)


def _child(code: str, *arguments: str, **how) -> Child:
    command = (sys.executable, "-c", code, *arguments)
    return Child("test", command, lambda: spawn.Spawn(**how))


def test_pauses_before_restarts_grow_until_a_child_lives_long():
    """The pauses before restarts grow until a child has lived long enough."""
    now = [0.0]
    restarts = Restarts(clock=lambda: now[0])
    pauses = []
    for _ in range(7):
        restarts.started()
        pauses.append(restarts.ended())
        assert not restarts.due()
        now[0] += pauses[-1]
        assert restarts.due()
    assert pauses == [0.1, 0.3, 1.0, 3.0, 10.0, 10.0, 10.0]
    restarts.started()
    now[0] += 30.0
    assert restarts.ended() == 0.1


def test_files_of_children_are_readable_by_their_user_alone(tmp_path):
    """Files of children are readable by nobody else, whatever the shell's umask allows."""
    before = os.umask(0o022)
    try:
        child = _child("import sys; open(sys.argv[1], 'w').close()", str(tmp_path / "file"))
        child.start()
        child.running.wait(120)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0


def test_an_ended_child_is_started_again():
    """A killed child is started again with another process id."""
    child = _child(_IDLE)
    first = child.start()
    child.running.kill()
    ended = []
    wait_for(lambda: ended.append(child.tick()) or (child.running and child.running.pid != first))
    assert [pid for pid in ended if pid is not None] == [first]
    child.stop(time.monotonic() + 5)
    assert child.running is None


def test_a_child_that_ignores_sigterm_is_killed(tmp_path):
    """A child that ignores SIGTERM is killed at the deadline."""
    child = _child(_STUBBORN, str(tmp_path / "ready"))
    pid = child.start()
    wait_for((tmp_path / "ready").exists)
    child.stop(time.monotonic() + 0.1)
    assert not alive(pid)


def test_a_child_has_its_own_process_group():
    """Ctrl-C does not reach a child, and its niceness has an effect beside its siblings."""
    code = "import os, sys; sys.exit(os.getpgrp() != os.getpid() or os.getsid(0) == os.getpid())"
    child = _child(code, nice=1)
    child.start()
    assert child.running.wait(10) == 0


def test_a_child_ends_with_its_parent():
    """If a parent is killed with -9, its children end."""
    code = (
        "import sys, time; from service.processes import spawn;"
        f"print(spawn.spawn([sys.executable, '-c', {_IDLE!r}]).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not alive(pid))


def test_a_directory_lost_during_a_restart_is_noticed(tmp_path):
    """A starting store is stopped if its directory is gone, and started once it is back."""
    directory = tmp_path / "data"
    store = EmbeddedStore(directory)
    supervisor = Supervisor(Settings(), store=store, worker=False, announce=print)

    def ticked(check: Callable[[], bool]) -> None:
        wait_for(lambda: supervisor.tick() or check())

    with store:
        store.child.kill()
        ticked(lambda: store.child is None)
        ticked(lambda: store.child is not None)
        wait_for(store.ready)  # the supervisor has not seen it yet
        directory.rename(tmp_path / "elsewhere")
        ticked(lambda: store.child is None)
        (tmp_path / "elsewhere").rename(directory)
        ticked(lambda: store.child is not None and store.ready())


def test_a_port_in_use_is_named():
    """The message about a port in use names the port and the setting."""
    with _bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartupFailed, match=f"127.0.0.1:{port} .*ANAMNESIS_PORT"):
            _bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no host", "999.1.1.1", "\udcff"])
def test_an_impossible_host_is_named(host: str):
    """The message about an impossible host names the setting."""
    with pytest.raises(StartupFailed, match="ANAMNESIS_HOST"):
        _bind(host, 0)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_shown_url_can_be_reached(host, shown):
    """The shown address can be reached, whatever address is bound."""
    supervisor = Supervisor(Settings(), store=None, worker=False, announce=print)
    with _bind(host, 0) as supervisor.listener:
        port = supervisor.listener.getsockname()[1]
        assert supervisor.url == f"http://{shown}:{port}"


def test_children_share_the_metrics_folder(tmp_path, monkeypatch):
    """The application knows the folder, and prometheus_client maps no file into memory."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    supervisor = Supervisor(Settings(), store=None, worker=False, announce=print)
    supervisor.metrics = MetricsFolder(tmp_path)
    env = supervisor._spawn().env
    assert env["ANAMNESIS_METRICS_DIR"] == str(supervisor.metrics.path)
    assert "PROMETHEUS_MULTIPROC_DIR" not in env
    supervisor.metrics.close()


_ARENAS = """
import ctypes, threading
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
held = threading.Barrier(5)
def allocate():
    libc.malloc(1000)
    held.wait(60)
for _ in range(4):
    threading.Thread(target=allocate).start()
held.wait(60)
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fclose(stdout)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_threads_of_an_api_process_share_one_memory_arena():
    """A thread can use memory that another one freed, so loading in threads does not add up."""
    supervisor = Supervisor(Settings(), store=None, worker=False, announce=print)
    with _bind("127.0.0.1", 0) as supervisor.listener:
        how = supervisor._spawn_api()
    with spawn.spawn((sys.executable, "-c", _ARENAS), how, stdout=subprocess.PIPE) as child:
        output, _ = child.communicate(timeout=120)
    assert output.count(b"<heap nr=") == 1


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [True, False])
def test_an_ignored_signal_stays_ignored(sig, ignored):
    """Under `nohup` a closed terminal ends nothing; other signals end the service."""
    asked = []
    before = signal.signal(sig, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with wakeups(lambda: asked.append(sig)):
            os.kill(os.getpid(), sig)
        assert asked == ([] if ignored else [sig])
        assert signal.getsignal(sig) is (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(sig, before)


def test_a_gpu_that_is_not_there_is_refused_at_the_start(monkeypatch):
    """With `ANAMNESIS_TRAINING_DEVICE=cuda` and no GPU nothing is started, and a sentence says why.

    Otherwise every training would fail.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    supervisor = Supervisor(
        Settings(training_device="cuda"), store=None, worker=True, announce=print
    )
    with pytest.raises(StartupFailed, match="ANAMNESIS_TRAINING_DEVICE: device: cuda needs a GPU"):
        supervisor.startup()
    assert unusable_device(Settings(training_device="auto")) is None
