"""Read a folder of AWS Lookout for Equipment, run a backtest of it and save a version to serve.

The folder holds CSV files, or one folder of CSV files for each component. The first column of each
file is a time, the others are sensors. The labels are a CSV of two columns without a header: the
start and the end of each time of abnormal behaviour. Rows of all files that have the same time
become one row. A sensor that has no value at that time keeps its previous value.

    python examples/lookout_folder.py data/ --labels labels.csv --output pump.anamnesis

The artifact goes into a detector by `POST /v1/detectors/pump/versions`.
"""

import argparse
import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from models import Config, train
from models.backtest import History, backtest, split_history
from models.progress import finish

FORMS = ("%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%m/%d/%Y %H:%M")


def seconds(cell: str) -> float:
    """Return a time, in UTC, as seconds since 1970."""
    for form in FORMS:
        try:
            return datetime.strptime(cell.strip()[:19], form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return datetime.fromisoformat(cell.strip()).astimezone(UTC).timestamp()


def sensors(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of all sensors, the times (n,) and the rows (n, d), ascending in time."""
    values_of: dict[str, dict[float, float]] = {}
    for file in sorted(folder.rglob("*.csv")):
        component = "" if file.parent == folder else f"{file.parent.name}."
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            names = [f"{component}{name.strip()}" for name in next(reader)[1:]]
            for at, *cells in reader:
                for name, cell in zip(names, cells, strict=True):
                    if cell.strip():
                        values_of.setdefault(name, {})[seconds(at)] = float(cell)
    times = np.array(sorted({at for values in values_of.values() for at in values}))
    X = np.full((len(times), len(values_of)), np.nan, np.float32)
    for j, values in enumerate(values_of.values()):
        times_of_sensor = np.array(sorted(values))
        before = np.searchsorted(times_of_sensor, times, "right") - 1
        known = before >= 0
        X[known, j] = np.array([values[at] for at in times_of_sensor])[before[known]]
    complete = ~np.isnan(X).any(axis=1)  # rows before the first value of any sensor have gaps
    return list(values_of), times[complete], X[complete]


def abnormal(labels: Path, times: np.ndarray) -> np.ndarray:
    """Return for each labelled event the mask of the `times` (n,) that it covers, (events, n)."""
    with labels.open(newline="", encoding="utf-8-sig") as lines:
        spans = [(seconds(start), seconds(end)) for start, end, *_ in csv.reader(lines)]
    return np.array([(times >= start) & (times <= end) for start, end in spans])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; return what it prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=Path, help="CSV of two columns: start, end")
    parser.add_argument("--output", type=Path, default=Path("lookout.anamnesis"))
    parser.add_argument("--kind", choices=("vae", "mahalanobis"), default="vae")
    args = parser.parse_args(arguments)
    names, times, X = sensors(args.folder)
    events = abnormal(args.labels, times) if args.labels else np.zeros((0, len(times)), bool)
    anomalous = events.any(axis=0) if len(events) else np.zeros(len(times), bool)
    config = Config(features=tuple(names), kind=args.kind)
    steps = backtest("as Lookout had it", History(X, anomalous), split_history(len(X)), config)
    result = finish(steps)
    version = train(None, X[~anomalous], config)
    version.save(args.output)
    alarms = version.is_anomaly(X)
    is_found = [bool(alarms[event].any()) for event in events]
    print(f"{len(X)} rows of {len(names)} sensors, {int(anomalous.sum())} of them labelled")
    print(f"backtest: {result.held:.2%} false alarms ({result.asked:.0%} asked)")
    if result.auroc is not None:
        print(f"backtest: AUROC {result.auroc:.3f} of labelled rows against the others")
    print(
        f"{sum(is_found)} of {len(is_found)} labelled events have an alarm; "
        f"{args.output} is written"
    )
    return {"sensors": names, "rows": len(X), "events": is_found, "held": result.held}


if __name__ == "__main__":
    main()
