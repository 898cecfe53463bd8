"""The trainer child, and the worker's side of it."""

import asyncio
import errno
import os
import resource
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import TrainingError
from service.processes.process_table import resident_bytes
from service.processes.spawn import python
from service.trainer import messages
from service.trainer.__main__ import _failure_of
from service.trainer.messages import Job, Progress
from service.worker import trainer_process
from service.worker.trainer_process import Trainer
from tests.service.stored import bounded
from tests.waiting import alive

pytestmark = pytest.mark.anyio


def _fake(folder: Path, body: str) -> tuple[str, ...]:
    """Return the command of a trainer that is ready at once and runs `body` with each `job`."""
    program = folder / "fake_trainer.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from service.trainer.messages import *
            def send(reply):
                sys.stdout.buffer.write(encode(reply)); sys.stdout.buffer.flush()
            def forever():
                import signal
                while True: signal.pause()
            send(Ready())
            while (body := read(sys.stdin.buffer)) is not None:
                job = job_decoder.decode(body)
            """
        )
        + textwrap.indent(textwrap.dedent(body), "    ")
    )
    return (sys.executable, str(program))


def _job(n: int = 40, d: int = 3) -> Job:
    rows = np.random.default_rng(0).normal(size=(n, d)).astype("<f4")
    config = {"model": {"epochs": 1}}
    return Job(previous=None, vectors=bytearray(rows.tobytes()), n=n, d=d, config=config)


def _ignore(progress: Progress) -> None:
    del progress


@pytest.fixture
async def trainers():
    """Return a function that makes trainers, which are closed at the end."""
    trainers: list[Trainer] = []

    def make(command=None, **limits) -> Trainer:
        settings = bounded(**{f"training_{name}": limit for name, limit in limits.items()})
        trainers.append(Trainer(settings, command))
        return trainers[-1]

    yield make
    for trainer in trainers:
        await trainer.close()


async def test_a_job_reaches_the_child_and_its_replies_come_back(tmp_path, trainers):
    """Progress is reported in order, and the artifact arrives byte for byte."""
    command = _fake(tmp_path, """
        for i in range(4): send(Progress(i / 4, 1.5))
        send(Trained(bytes(job.vectors)))
    """)  # fmt: skip
    trainer, job, heard = trainers(command=command), _job(n=30_000, d=10), []
    assert await trainer.train(job, heard.append) == bytes(job.vectors)
    assert [progress.fraction for progress in heard] == [0, 0.25, 0.5, 0.75]


async def test_the_child_is_reused_unless_it_died(tmp_path, trainers):
    """One child does many jobs; after a failed training it does the next one."""
    command = _fake(tmp_path, """
        send(Trained(b"x") if job.n == 40 else Failed("loss is nan"))
    """)  # fmt: skip
    trainer = trainers(command=command)
    assert await trainer.train(_job(), _ignore) == b"x"
    pid = trainer.pid
    with pytest.raises(TrainingError, match="loss is nan"):
        await trainer.train(_job(n=41), _ignore)
    assert await trainer.train(_job(), _ignore) == b"x"
    assert trainer.pid == pid


async def test_a_child_that_dies_is_replaced(tmp_path, trainers):
    """If a child dies, its job fails with the cause, and the next job gets a new child."""
    command = _fake(tmp_path, """
        if job.n == 41: os.kill(os.getpid(), 9)
        send(Trained(b"x"))
    """)  # fmt: skip
    trainer = trainers(command=command)
    with pytest.raises(TrainingError, match="SIGKILL"):
        await trainer.train(_job(n=41), _ignore)
    assert await trainer.train(_job(), _ignore) == b"x"


async def test_a_training_needs_no_current_directory(tmp_path, trainers, monkeypatch):
    """A worker whose directory was deleted, as by a cleaner of /tmp, goes on learning."""
    deleted = tmp_path / "gone"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    deleted.rmdir()
    assert len(await trainers().train(_job(), _ignore)) > 1000


async def test_a_training_that_goes_on_for_too_long_is_stopped(tmp_path, trainers):
    """A training that takes too long is stopped; the reason names the setting."""
    command = _fake(tmp_path, """
        while job.n == 41: send(Progress(0.5, 1.0)); time.sleep(0.01)
        send(Trained(b"x"))
    """)  # fmt: skip
    assert await trainers(command=command, seconds=600.0).train(_job(), _ignore) == b"x"
    trainer = trainers(command=command, seconds=0.3)
    await trainer.warm()
    pid = trainer.pid
    with pytest.raises(TrainingError, match=r"longer than 0\.3 s, the limit in ANAMNESIS_TR"):
        await trainer.train(_job(n=41), _ignore)
    assert not alive(pid)


async def test_a_training_without_processor_time_may_take_longer(tmp_path, trainers, monkeypatch):
    """The limit counts processor time first: on a busy machine a good training is not stopped."""
    monkeypatch.setattr(trainer_process, "_STARVED", 1e6)
    command = _fake(tmp_path, """
        for _ in range(10): send(Progress(0.5, 1.0)); time.sleep(0.1)
        while job.n == 41: pass
        send(Trained(b"x"))
    """)  # fmt: skip
    trainer = trainers(command=command, seconds=0.5)
    assert await trainer.train(_job(), _ignore) == b"x"
    with pytest.raises(TrainingError, match=r"longer than 0\.5 s, .* s of processor time"):
        await trainer.train(_job(n=41), _ignore)


@pytest.mark.parametrize("silence", ["forever()", "while True: pass"])
async def test_a_silent_child_is_killed(tmp_path, trainers, silence):
    """A child without progress for too long, idle or busy, is killed."""
    trainer = trainers(command=_fake(tmp_path, silence), stall_seconds=0.3)
    await trainer.warm()
    pid = trainer.pid
    with pytest.raises(TrainingError, match=r"no progress for 0\.3 s"):
        await trainer.train(_job(), _ignore)
    assert not alive(pid)


async def test_a_slow_child_with_some_progress_is_not_killed(tmp_path, trainers):
    """A child with little progress on a busy machine is not killed."""
    command = _fake(tmp_path, """
        until = time.process_time() + 0.25
        while time.process_time() < until:
            began = time.process_time()
            while time.process_time() < began + 0.01: pass
            time.sleep(0.1)
        send(Trained(b"x"))
    """)  # fmt: skip
    trainer = trainers(command=command, stall_seconds=2.0)
    assert await trainer.train(_job(), _ignore) == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_IDLE")
async def test_a_child_that_gets_almost_no_processor_is_not_killed(tmp_path, trainers):
    """A child that waits for a processor is not idle, however long it waits.

    It shares one processor with a busy process and gets less than a hundredth of it.
    """
    command = _fake(tmp_path, """
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        began = time.process_time()
        while time.process_time() < began + 0.01: pass
        send(Trained(b"x"))
    """)  # fmt: skip
    busy = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", busy)
    try:
        trainer = trainers(command=command, stall_seconds=1.0)
        assert await trainer.train(_job(), _ignore) == b"x"
    finally:
        other.kill()
        await other.wait()


async def test_a_child_that_takes_no_job_is_killed(tmp_path, trainers):
    """A child that does not read its pipe is killed, like one that does not answer."""
    program = tmp_path / "deaf.py"
    program.write_text(
        "import sys, signal\nfrom service.trainer.messages import *\n"
        "sys.stdout.buffer.write(encode(Ready())); sys.stdout.buffer.flush(); signal.pause()\n"
    )
    trainer = trainers(command=(sys.executable, str(program)), stall_seconds=0.3)
    with pytest.raises(TrainingError, match=r"no progress for 0\.3 s"):
        await trainer.train(_job(n=100_000), _ignore)
    assert trainer.pid is None


async def test_a_child_that_takes_too_much_memory_is_killed(tmp_path, trainers):
    """Memory is watched while the child reports progress and while it is silent."""
    command = _fake(tmp_path, """
        hoard = []
        while True:
            hoard.append(b"x" * 2**22)
            send(Progress(0.5, 1.0))
    """)  # fmt: skip
    trainer = trainers(command=command, memory_bytes=2**28)
    with pytest.raises(TrainingError, match=r"bytes of memory; the limit is 268435456"):
        await trainer.train(_job(), _ignore)
    assert trainer.pid is None


async def test_a_job_for_which_there_is_no_memory_says_so(trainers):
    """A child that may take no more memory names the cause; the next child does the next job."""
    trainer = trainers()
    await trainer.train(_job(), _ignore)
    assert trainer.pid is not None
    taken = resident_bytes(trainer.pid)
    resource.prlimit(trainer.pid, resource.RLIMIT_AS, (taken, taken))
    with pytest.raises(TrainingError, match="not enough memory to train"):
        await trainer.train(_job(n=2**20, d=32), _ignore)
    assert await trainer.train(_job(), _ignore)


@pytest.mark.parametrize("mib", [250, 740])
async def test_a_child_that_may_not_take_enough_memory_says_so_at_once(trainers, mib):
    """A child with too little memory for its libraries, or for OpenBLAS, ends with that reason."""
    limited = ("prlimit", f"--as={mib * 2**20}", *python("service.trainer", "1", "cpu"))
    trainer = trainers(command=limited, stall_seconds=30)
    with pytest.raises(TrainingError, match="not enough memory to train"):
        await trainer.train(_job(n=3000, d=8), _ignore)
    assert trainer.pid is None


@pytest.mark.parametrize(
    "said",
    [
        ImportError("libgomp.so.1: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"),
    ],
)
def test_lack_of_memory_has_one_reason(said):
    """Loader, system and torch say in their own words that memory is short."""
    assert _failure_of(said) == messages.Failed("not enough memory to train", broken=True)


async def test_cancelling_stops_the_child_at_once(tmp_path, trainers):
    """A training that is cancelled leaves no process."""
    trainer = trainers(command=_fake(tmp_path, "send(Progress(0.1, 1.0)); forever()"))
    started = asyncio.Event()
    training = asyncio.create_task(trainer.train(_job(), lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 10)
    pid = trainer.pid
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert not alive(pid)


async def test_the_child_is_nice_and_has_its_own_process_group(tmp_path, trainers):
    """The child is nice in its parent's session, and Ctrl-C does not reach it."""
    trainer = trainers(command=_fake(tmp_path, "send(Trained(b''))"))
    await trainer.train(_job(), _ignore)
    assert os.getpriority(os.PRIO_PROCESS, trainer.pid) == 19
    assert os.getsid(trainer.pid) == os.getsid(0)
    assert os.getpgid(trainer.pid) == trainer.pid


async def test_the_trainer_learns_what_the_library_learns(trainers):
    """With the same seed, data and parent the child's artifact equals `models.train`'s."""
    from models import Config, Version, train

    config = Config.from_dict({"model": {"epochs": 3, "hidden": [8], "latent": 2}})
    rows = np.random.default_rng(1).normal(size=(200, 4)).astype("<f4")
    trainer, heard = trainers(), []
    job = Job(previous=None, vectors=bytearray(rows.tobytes()), n=200, d=4, config=config.to_dict())
    first = await trainer.train(job, heard.append)
    assert heard
    assert first == train(None, rows, config).to_bytes()
    more = Job(previous=first, vectors=bytearray(rows.tobytes()), n=200, d=4,
               config=config.to_dict(), weights={"w_prev": 0.5, "w_new": 0.5})  # fmt: skip
    second = Version.from_bytes(await trainer.train(more, _ignore))
    assert (second.lineage.w_prev, second.lineage.w_new) == (0.5, 0.5)
    assert second.lineage.evidence.to_dict().keys() >= {"new", "old", "synthetic"}
    judged = msgspec.structs.replace(
        more, labelled_rows=rows[:9].tobytes(), anomalous=bytes(9), anchor=first
    )
    third = Version.from_bytes(await trainer.train(judged, _ignore)).lineage.evidence
    assert (third.labelled.normals, third.labelled.anomalies) == (9, 0)
    assert third.anchor.anchor == third.synthetic.champion  # these are the same here


async def test_a_broken_parent_artifact_is_a_failure_with_a_reason(trainers):
    """A damaged parent artifact fails with a reason, and the child continues."""
    trainer = trainers()
    job = _job()
    broken = Job(b"not a version", job.vectors, job.n, job.d, {})
    with pytest.raises(TrainingError):
        await trainer.train(broken, _ignore)
    assert trainer.pid is not None


async def test_stray_prints_cannot_corrupt_the_pipe():
    """In the child fd 1 is stderr and fd 0 is empty, so prints cannot break the protocol."""
    program = (
        "from service.trainer.__main__ import _take_pipes; import os, sys;"
        "jobs, replies = _take_pipes(); print('stray', flush=True); os.system('echo stray');"
        "replies.write(jobs.read()); replies.flush(); sys.exit(len(sys.stdin.read()))"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=-1, stdout=-1, stderr=-1
    )
    out, err = await child.communicate(b"frame")
    assert (child.returncode, out, err) == (0, b"frame", b"stray\nstray\n")


def test_a_cut_frame_reads_as_the_end_of_the_stream(tmp_path):
    """A frame that is cut gives the end of the stream, not half a message."""
    frame = messages.encode(Progress(0.5, 1.0))
    path = tmp_path / "pipe"
    for length in range(len(frame)):
        path.write_bytes(frame[:length])
        with path.open("rb") as stream:
            assert messages.read(stream) is None


async def test_a_child_with_a_failure_of_its_own_is_replaced(tmp_path, trainers):
    """After a failure that the data did not cause, the next job has a new process."""
    command = _fake(tmp_path, """
        seen = __file__ + ".seen"
        if os.path.exists(seen):
            send(Trained(str(os.getpid()).encode()))
        else:
            open(seen, "w").close()
            send(Failed(f"OSError: {os.getpid()}", broken=True))
    """)  # fmt: skip
    trainer = trainers(command=command)
    with pytest.raises(TrainingError, match="OSError: ") as first:
        await trainer.train(_job(), _ignore)
    assert trainer.pid is None
    assert (await trainer.train(_job(), _ignore)).decode() not in str(first.value)


async def test_a_failure_caused_by_the_data_keeps_the_child(tmp_path, trainers):
    """After a failure that the data caused, the child is kept."""
    command = _fake(tmp_path, 'send(Failed("the loss is not finite"))')
    trainer = trainers(command=command)
    with pytest.raises(TrainingError, match="the loss is not finite"):
        await trainer.train(_job(), _ignore)
    assert trainer.pid is not None


async def test_a_child_that_cannot_start_says_why(trainers):
    """If a child cannot start, the reason is its own message."""
    trainer = trainers(command=(sys.executable, "-m", "service.trainer", "many"))
    with pytest.raises(TrainingError, match="the trainer cannot start: ValueError: "):
        await trainer.train(_job(), _ignore)


async def test_a_trainer_that_cannot_start_is_a_failed_training(trainers):
    """If no process can be started, the experience stays buffered and is tried again."""
    trainer = trainers(command=("/nowhere/python",))
    with pytest.raises(TrainingError, match=r"the trainer cannot start: .*No such file"):
        await trainer.train(_job(), _ignore)


def test_the_first_cause_is_reported(capsys):
    """If an error follows from an earlier one, the earlier one is reported."""
    later = RuntimeError("already registered")
    later.__cause__ = OSError("no room for temporary files")
    failed = _failure_of(later)
    assert failed == messages.Failed("OSError: no room for temporary files", broken=True)
    assert "already registered" in capsys.readouterr().err
