"""The examples run, and their tables agree with their texts."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import Config, Version, train

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _threads() -> Any:
    """Restore torch's number of threads after an example."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def rows(example: str, picture: Path) -> dict[str, dict[str, Any]]:
    """Run a smaller form of `example`; return its table by the first column."""
    main = runpy.run_path(str(EXAMPLES / f"{example}.py"))["main"]
    table = main(["--quick", "--output", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    return {next(iter(row.values())): row for row in table}


def test_finetuning_forgets_and_replay_does_not(tmp_path: Path) -> None:
    """Both strategies know the second regime; replay knows the first too, and finds anomalies."""
    table = rows("two_regimes", tmp_path / "two_regimes.png")
    finetuned, replayed = table["the second alone (finetune)"], table["the second, replay 1:1"]
    assert table["after the first regime"]["first"] < 6
    assert table["after the first regime"]["second"] > 95
    assert finetuned["first"] > 90
    assert finetuned["second"] < 8
    assert replayed["first"] < 10
    assert replayed["second"] < 8
    assert replayed["anomalies"] > 75


@pytest.mark.thorough
def test_the_weights_decide_how_much_of_each_piece_is_left(tmp_path: Path) -> None:
    """The share drawn of the oldest piece grows with w_prev."""
    table = rows("sinusoid", tmp_path / "sinusoid.png")
    oldest = {name: row["middle drawn"] for name, row in table.items()}
    assert oldest["(0.2, 0.8)"] < oldest["(0.5, 0.5)"] < oldest["(0.8, 0.2)"]
    assert oldest["(n_prev/n, n_new/n)"] > 20
    assert table["(0.2, 0.8)"]["right drawn"] > 45
    assert table["(n_prev/n, n_new/n)"]["middle alarms"] < 6


def test_a_lookout_folder_gives_a_backtest_and_a_version(tmp_path: Path) -> None:
    """Folders of components with different clocks, and labels without a header, are read."""
    rng = np.random.default_rng(0)
    for component, minutes, sensors in (
        ("motor", 1, ("current", "speed")),
        ("bearing", 2, ("temp",)),
    ):
        (tmp_path / "data" / component).mkdir(parents=True)
        lines = [",".join(("Timestamp", *sensors))]
        for i in range(0, 600, minutes):
            shift = 9.0 if 500 <= i < 520 else 0.0
            values = (f"{20 + shift + rng.normal():.3f}" for _ in sensors)
            lines.append(",".join((f"2026-01-01 {i // 60:02}:{i % 60:02}:00", *values)))
        (tmp_path / "data" / component / "a.csv").write_text("\n".join(lines))
    (tmp_path / "labels.csv").write_text("2026-01-01 08:20:00,2026-01-01 08:39:00\n")
    main = runpy.run_path(str(EXAMPLES / "lookout_folder.py"))["main"]
    printed = main(
        [str(tmp_path / "data"), "--labels", str(tmp_path / "labels.csv"), "--kind", "mahalanobis",
         "--output", str(tmp_path / "v")]
    )  # fmt: skip
    assert printed["sensors"] == ["bearing.temp", "motor.current", "motor.speed"]
    assert (printed["rows"], printed["events"]) == (600, [True])
    assert printed["held"] < 0.05
    assert Version.load(tmp_path / "v").features == tuple(printed["sensors"])


def test_two_processes_write_the_same_scores_as_one(tmp_path: Path) -> None:
    """Two processes of Dask write the same scores as one version for the whole matrix."""
    pytest.importorskip("dask")
    X = np.random.default_rng(0).normal(size=(120_000, 3)).astype(np.float32)
    version = train(None, X[:500], Config(kind="mahalanobis"))
    version.save(tmp_path / "pump.anamnesis")
    np.save(tmp_path / "rows.npy", X)
    out = tmp_path / "scores.npy"
    files = (tmp_path / "rows.npy", tmp_path / "pump.anamnesis", "--output", out)
    command = [sys.executable, str(EXAMPLES / "score_with_dask.py"), *map(str, files)]
    subprocess.run([*command, "--workers", "2"], check=True, timeout=300)
    np.testing.assert_array_equal(np.load(out), version.score(X))
