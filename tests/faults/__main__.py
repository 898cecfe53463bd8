"""The long form: every fault of the catalogue, many times, and a table of the results.

`python -m tests.faults [--share 0.1] [--output FILE] [NAME...]`: with `--share 0.1` each fault is
tried a tenth as often. The output file keeps finished runs, which are not repeated if the same file
is given again.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

from tests.faults import artifacts, crashes, going_back, learning, peers, schema, stores, swaps  # noqa: F401 - each adds its faults to FAULTS
from tests.faults.catalogue import FAULTS, LONG_FORM, Fault


def main() -> int:
    """Run the chosen faults; return 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="faults to try (all)")
    parser.add_argument("--share", type=float, default=1.0, help="share of each fault's tries (1)")
    parser.add_argument("--output", type=Path, help="JSON of results, continued where it exists")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    arguments = parser.parse_args()
    if arguments.list:
        for fault in FAULTS.values():
            print(f"{fault.name:34} {fault.long:8}  {fault.fault}")
        return 0
    if unknown := set(arguments.names) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    continued = arguments.output is not None and arguments.output.exists()
    results = json.loads(arguments.output.read_text()) if continued else {}
    LONG_FORM.set(True)
    for name in arguments.names or FAULTS:
        if name not in results:
            results[name] = _try(FAULTS[name], arguments.share)
            if arguments.output:
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                arguments.output.write_text(json.dumps(results, indent=1))
    print(_table(results))
    return 0 if all(result["kept"] for result in results.values()) else 1


def _try(fault: Fault, share: float) -> dict:
    runs = max(1, round(fault.long * share))
    print(f"{fault.name}, {runs} ...", end=" ", flush=True, file=sys.stderr)
    began = time.monotonic()
    try:
        result, kept = asyncio.run(fault.run(runs)), True
    except Exception as error:  # noqa: BLE001 - the other faults are tried all the same
        traceback.print_exc()
        result, kept = f"FAILED: {str(error)[:300]}", False
    seconds = time.monotonic() - began
    print(f"{seconds:.0f} s: {result}", file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    return {
        "runs": runs, "result": result, "kept": kept, "seconds": round(seconds), "machine": machine
    }  # fmt: skip


def _table(results: dict) -> str:
    lines = ["| fault | promise | runs | result |", "|---|---|---|---|"]
    for name, result in results.items():
        fault = FAULTS[name]
        lines.append(f"| {fault.fault} | {fault.promise} | {result['runs']} | {result['result']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
