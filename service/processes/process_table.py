"""Reads from /proc the processor time and the memory of a process."""

import os
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """Return the seconds of processor time that a process has used. 0 if that is not known."""
    fields = _state_fields(Path(f"/proc/{pid}/stat"))
    # User and system time.
    ticks = int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def wants_processor(pid: int) -> bool:
    """Return whether a thread of a process computes, or waits for a processor or a disk.

    False if that is not known.
    """
    threads = Path(f"/proc/{pid}/task")
    try:
        states = [_state_fields(one / "stat")[:1] for one in threads.iterdir()]
    except OSError:
        return False
    return ["R"] in states or ["D"] in states


def resident_bytes(pid: int) -> int:
    """Return the bytes of memory that a process holds. 0 if that is not known.

    It is the resident memory. The virtual one has gigabytes that torch maps and never uses.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _state_fields(file: Path) -> list[str]:
    """Return the fields of a `stat` that follow the name, beginning with the state.

    The name itself may contain spaces. Empty if the process or thread has ended.
    """
    try:
        return file.read_text().rpartition(")")[2].split()
    except OSError:
        return []
