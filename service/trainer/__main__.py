"""The trainer: the worker's child process that learns, at the lowest priority.

`python -m service.trainer THREADS DEVICE` reads jobs from stdin and writes replies to
stdout (see `trainer.messages`). It loads torch before the first job. It writes nothing but replies,
so killing it at any moment loses nothing. It ends when its stdin ends.
"""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np

from models import AnamnesisError, Version
from models.arrays import Array
from models.config import Config
from models.decisions.evidence import gather
from models.parts.labels import Labels
from models.parts.lineage import Evidence, Vouched
from models.progress import finish
from service.trainer.messages import (
    Failed,
    Job,
    Progress,
    Ready,
    Reply,
    Trained,
    encode,
    job_decoder,
    read,
)

if TYPE_CHECKING:
    from models.training.learner import Progress as Step

_PROGRESS_SECONDS = 0.05  # ten times as often as the worker stores it; a step takes about 1 ms

_NO_MEMORY = Failed("not enough memory to train", broken=True)
# Errors of the loader, the system and torch for lack of memory, which are no MemoryError.
_NO_MEMORY_TEXTS = ("failed to map segment", "cannot allocate memory", "can't allocate memory")
_DROPPED_BYTES = 64 * 1024  # bytes of a job that are dropped at a time
_BLAS_BYTES = 128 * 2**20  # of a thread: more than the buffers of numpy's OpenBLAS and scipy's
_BLAS_SIDE = 512  # OpenBLAS multiplies matrices of this size by way of its buffers


def main() -> None:
    """Serve jobs until the worker closes the pipe."""
    jobs, replies = _take_pipes()

    def send(reply: Reply) -> None:
        replies.write(encode(reply))
        replies.flush()

    _offer_to_out_of_memory_killer()
    try:
        _load(int(sys.argv[1]), sys.argv[2])
    except Exception as error:  # noqa: BLE001 - the worker must learn of every error
        send(_failure_of(error))
        return
    send(Ready())
    while (job := _next_job(jobs, send)) is not None:
        send(_answer(job, send))
        del job


def _take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Return (jobs, replies), and redirect stdout to stderr, so that libraries can print."""
    jobs, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return jobs, replies


def _next_job(jobs: IO[bytes], send: Callable[[Reply], None]) -> Job | None:
    """Return the next job, None if there is none, or if there is no memory for it."""
    try:
        body = read(jobs)
        return None if body is None else job_decoder.decode(body)
    except MemoryError:
        send(_NO_MEMORY)
        while jobs.read(_DROPPED_BYTES):
            pass  # the worker reads the reply once it has sent the whole job
        return None


def _offer_to_out_of_memory_killer() -> None:
    """Let the kernel kill this process first if memory runs out, before the store or the API."""
    # It fails if the system is not Linux, or if the container does not allow it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _load(threads: int, device: str) -> None:
    import threadpoolctl  # type: ignore[import-untyped]  # ships no types
    import torch

    import models.training.autoencoder  # noqa: F401 - so that the first job does not wait for it
    from models import use_device

    use_device(device)
    torch.set_num_threads(threads)
    # This limits numpy's BLAS and the thread pools of other libraries.
    threadpoolctl.threadpool_limits(threads)
    _take_blas_buffers(threads)


def _take_blas_buffers(threads: int) -> None:
    """Let both OpenBLAS libraries take their buffers, which they keep. Raises MemoryError.

    OpenBLAS that gets no memory for a buffer asks again for ever. So this must not happen within a
    training.
    """
    from scipy.linalg.blas import dgemm

    np.empty(threads * _BLAS_BYTES, np.uint8)  # only address space: no page of it is touched
    square = np.ones((_BLAS_SIDE, _BLAS_SIDE))
    square @ square
    dgemm(1.0, square, square)


def _answer(job: Job, send: Callable[[Reply], None]) -> Trained | Failed:
    try:
        return Trained(_learn(job, send).to_bytes())
    except AnamnesisError as error:
        return Failed(str(error))
    except MemoryError:
        return _NO_MEMORY
    except Exception as error:  # noqa: BLE001 - the worker decides what becomes of this process
        return _failure_of(error)


def _failure_of(error: BaseException) -> Failed:
    """Return the first cause of `error` in words, and log its traceback."""
    traceback.print_exception(error)
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    message = str(error).lower()
    if isinstance(error, MemoryError) or any(text in message for text in _NO_MEMORY_TEXTS):
        return _NO_MEMORY
    return Failed(f"{type(error).__name__}: {error}", broken=True)


def _learn(job: Job, send: Callable[[Reply], None]) -> Version:
    from models import learn

    previous = None
    if job.previous is not None:
        previous = Version.from_bytes(job.previous, max_bytes=job.artifact_max_bytes)
    new = np.frombuffer(job.vectors, dtype="<f4").reshape(job.n, job.d)
    config = Config.from_dict(job.config)
    vouched = np.frombuffer(job.vouched, np.bool_) if job.vouched else None
    sent_at = -_PROGRESS_SECONDS

    def report(step: "Step") -> None:
        nonlocal sent_at
        if time.monotonic() - sent_at >= _PROGRESS_SECONDS:
            sent_at = time.monotonic()
            send(Progress(*step))

    version = finish(learn(previous, new, config, job.weights, vouched=vouched), report)
    if previous is not None:
        version = version.with_lineage(evidence=_evidence(job, version, previous, new))
    if vouched is not None:
        alarms = version.judge(new[vouched], version.threshold_for(config.threshold)).is_anomaly
        result = Vouched(n=len(alarms), still=int(alarms.sum()))
        evidence = msgspec.structs.replace(version.lineage.evidence, vouched=result)
        version = version.with_lineage(evidence=evidence)
    return version


def _evidence(job: Job, candidate: Version, champion: Version, new: Array) -> Evidence:
    """Return the evidence for the gate. It is computed here because it needs both versions."""
    anomalous = np.frombuffer(job.anomalous, np.bool_)
    labels = Labels(
        np.frombuffer(job.labelled_rows, "<f4").reshape(len(anomalous), job.d), anomalous
    )
    anchor = job.anchor and Version.from_bytes(job.anchor, max_bytes=job.artifact_max_bytes)
    return gather(candidate, champion, labels, anchor or None, new)


if __name__ == "__main__":
    main()
