"""Names of the files in which API processes share their metrics: they say whose they are."""

import re
from pathlib import Path

TOTAL = "total"  # counters and histograms: what was counted stays counted
LIVE = "live"  # gauges of a process that runs
LIVES = (TOTAL, LIVE)
_OURS = re.compile(rf"anamnesis-\d+-({TOTAL}|{LIVE})\.(names|values)")


def stem(folder: Path, place: int, life: str) -> Path:
    """Return the files of the process at `place`, without their suffix."""
    return folder / f"anamnesis-{place}-{life}"


def place_of(file: Path) -> str:
    """Return whose file it is."""
    return file.name.split("-")[1]


def remove(folder: Path, *, place: int | None = None, life: str | None = None) -> None:
    """Remove such files from `folder`, all or those of one `place` or `life`; raises OSError.

    No other file is touched.
    """
    wanted = f"anamnesis-{'*' if place is None else place}-{life or '*'}.*"
    for file in folder.glob(wanted):
        if _OURS.fullmatch(file.name):
            file.unlink(missing_ok=True)
