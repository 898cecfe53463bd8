"""Names of the files in which API processes share metrics. A name contains the process's place."""

import re
from pathlib import Path

TOTAL = "total"  # counters and histograms, which outlive their process
LIVE = "live"  # gauges, which are removed with their process
LIFETIMES = (TOTAL, LIVE)
_OURS = re.compile(rf"anamnesis-\d+-({TOTAL}|{LIVE})\.(names|values)")


def stem(folder: Path, place: int, lifetime: str) -> Path:
    """Return the path of the files of the process at `place`, without a suffix."""
    return folder / f"anamnesis-{place}-{lifetime}"


def place_of(file: Path) -> str:
    """Return the place of the process that a file belongs to."""
    return file.name.split("-")[1]


def remove(folder: Path, *, place: int | None = None, lifetime: str | None = None) -> None:
    """Remove metric files from `folder`: all, or those of one `place` or `lifetime`.

    No other file is touched. Raises OSError.
    """
    pattern = f"anamnesis-{'*' if place is None else place}-{lifetime or '*'}.*"
    for file in folder.glob(pattern):
        if _OURS.fullmatch(file.name):
            file.unlink(missing_ok=True)
