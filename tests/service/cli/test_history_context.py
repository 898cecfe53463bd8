"""The context that a backtest derives from a history."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from typer.testing import CliRunner

from models.context import SCORED, derive
from service.cli import disk_rows
from service.cli.__main__ import app
from service.cli.history_context import chosen_context, with_context
from service.cli.history_files import read
from service.cli.text_table import Options

ROWS, OPTIONS = 300, Options(time="when", source="pump")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two pumps, one after the other, whose rows change slowly, and one row that is late."""
    rng = np.random.default_rng(0)
    where = tmp_path_factory.mktemp("history") / "pumps.csv"
    lines, valve = ["when,pump,speed,valve,fault"], ("false", "true")
    for pump in ("a", "b"):
        speed = lfilter([0.3], [1.0, -0.95], rng.normal(size=ROWS))
        lines += [
            f"{1767225600 + 60 * i},{pump},{value:.4f},{valve[i // 100 % 2]},{int(i == 250)}"
            for i, value in enumerate(speed)
        ]
    lines.append(lines[-1])
    where.write_text("\n".join(lines))
    return where


def test_a_history_is_derived_in_parts_as_in_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part keeps the rows that the next part needs, and each row keeps its time."""
    monkeypatch.setattr(disk_rows, "_AT_ONCE", 47)
    history = read(file, OPTIONS, "fault")
    context, why = chosen_context(history, 200, "UTC")
    assert context is not None, why
    assert context.over == 10
    derived = with_context(history, context)
    assert history.times is not None
    assert history.sources is not None
    sources = [str(number) for number in history.sources[:]]
    X, states = derive(
        context, history.vectors[:], np.array([True, False]), times=history.times[:],
        sources=sources,
    )  # fmt: skip
    scored = states == SCORED
    assert scored.sum() == 2 * (ROWS - 10)
    np.testing.assert_array_equal(derived.vectors[:], X[scored])
    assert derived.times is not None
    np.testing.assert_array_equal(derived.times[:], history.times[:][scored])
    assert derived.anomalous is not None
    assert derived.anomalous[:].sum() == 2


@pytest.mark.parametrize(("options", "rows"), [([], 2 * (ROWS - 10)), (["--no-context"], 601)])
def test_a_backtest_judges_with_the_context_that_learn_chooses(
    file: Path, options: list[str], rows: int
) -> None:
    """A history with times is judged with the rows before each row, except by `--no-context`."""
    command = ["backtest", str(file), "--time", "when", "--source", "pump", "--label", "fault"]
    command += ["--score", "elbo", "--weights", "proportional", "--batch", "400", "--json"]
    ran = CliRunner().invoke(app, [*command, *options])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert (report["rows"], report["features"]) == (rows, ["speed", "valve"])
    assert (report["suggested"]["context"] is None) == bool(options)
    assert ("deviation from the 10 rows before it" in ran.stderr) != bool(options)
