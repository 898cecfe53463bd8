"""The report of every benchmark: the machine, the command, tables, a JSON file."""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

_LIBRARIES = ("numpy", "torch", "scikit-learn", "river", "pyod", "pyclad")


def machine() -> dict[str, Any]:
    """Return the conditions of a measurement: processor, cores, memory, versions, command."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": _cores(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": libraries,
        "kernels": _kernels(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
    }


def _cores() -> int:
    # A container or taskset may allow fewer cores than the machine has; only Linux reports this.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _kernels() -> list[str]:
    # OPENBLAS_CORETYPE may ask for the kernels of an older processor than this machine has.
    named = [library for library in threadpool_info() if "architecture" in library]
    return sorted({f"{kernel['internal_api']} {kernel['architecture']}" for kernel in named})


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows`, all with the keys of the first, as a Markdown table."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Return the mean and, if there are several values, the standard deviation.

    >>> spread([0.9, 0.92])
    '0.910 ± 0.010'
    >>> spread([0.9])
    '0.900'
    """
    numbers = np.asarray(list(values), float)
    if not numbers.size or np.isnan(numbers).any():
        return ""
    mean = f"{numbers.mean():.{digits}f}"
    return mean if numbers.size == 1 else f"{mean} ± {numbers.std():.{digits}f}"


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser whose `--help` shows the description line by line, as it is written."""
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=formatter)


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the option of nearly every benchmark, `--output`."""
    parser = parser_of(description)
    parser.add_argument("--output", type=Path, help="save the figures as JSON here too")
    return parser


def report(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    output: Path | None,
    further: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    **more: Any,
) -> None:
    """Print the machine and the table, then the `further` ones under their titles.

    With `output`, save all of it and `more` as JSON.
    """
    if not rows:
        raise SystemExit("nothing is measured yet")
    where = machine()
    versions = ", ".join(f"{library} {version}" for library, version in where["libraries"].items())
    print(f"{name}: {where['processor']}, {where['cores']} cores, {where['date']}")
    kernels = ", ".join(where["kernels"])
    print(f"Python {where['python']}, {versions}; {kernels}\n{where['command']}\n")
    print(table(rows))
    for title, others in (further or {}).items():
        print(f"\n{title}\n\n{table(others) if others else 'none'}")
    print("\n`--help`, docs/benchmarks.md and docs/performance.md explain the columns.")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        figures = {"name": name, "machine": where, "rows": list(rows), "further": further, **more}
        output.write_text(json.dumps(figures, indent=1) + "\n")
