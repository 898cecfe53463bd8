"""What the operating system says of a process: whether it lives, its processor time, its memory."""

import os
import sys
from pathlib import Path


def alive(pid: int) -> bool:
    """Return whether a process with this id exists and has not ended (a zombie has)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    fields = _fields(pid)
    # No /proc (not Linux), or it ended just now.
    return fields[0] not in ("Z", "X") if fields else sys.platform != "linux"


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process had so far; 0 where the system does not say."""
    fields = _fields(pid)
    # User and system time.
    ticks = int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds, bytes; 0 where the system does not say.

    Resident and not virtual: torch maps gigabytes that it never touches.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _fields(pid: int) -> list[str]:
    """Return the fields of `stat` from the state on, behind the name, which may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
