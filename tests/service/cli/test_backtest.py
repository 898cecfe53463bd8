import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli.__main__ import app
from service.cli.table_files import BadTable

RUN = ["--first", "200", "--batch", "200", "--weights", "proportional"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ten days: 200 rows of one regime, then 400 of another, ten minutes apart."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal([20, 60], 2, (200, 2)), rng.normal([0, 80], 2, (400, 2))])
    where = tmp_path_factory.mktemp("history") / "pump.csv"
    lines = [f"{1767225600 + 600 * i},{a:.3f},{b:.3f}" for i, (a, b) in enumerate(X)]
    where.write_text("\n".join(["when,temperature,humidity", *lines]))
    return where


@pytest.mark.thorough
def test_json_has_regimes_and_alarms_by_day(file: Path):
    """The first batch is a new regime, and alarms are counted by day."""
    ran = CliRunner().invoke(
        app, ["backtest", str(file), "--time", "when", "--no-context", *RUN, "--json"]
    )
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert (report["rows"], report["from"]) == (600, "2026-01-01 00:00")
    assert report["features"] == ["temperature", "humidity"]
    (lifetime,) = report["lifetimes"]
    first, second = lifetime["batches"]
    assert first["rate"] > 0.9
    assert second["rate"] < 0.1
    assert lifetime["alarms_unit"] == "per day"
    days = 399 * 600 / 86_400
    assert lifetime["alarms"] == pytest.approx((first["alarms"] + second["alarms"]) / days)
    assert report["suggested"]["strategy"] == "replay"


def test_the_report_for_people_compares_arms_in_sentences(file: Path, tmp_path: Path):
    """Without times alarms are counted per thousand rows; arms are compared; a PNG is written.

    The column of times is no feature, because it only rises.
    """
    pytest.importorskip("matplotlib")
    arms = ["--strategy", "replay", "--strategy", "finetune", "--plot", str(tmp_path / "b.png")]
    ran = CliRunner().invoke(app, ["backtest", str(file), *RUN, *arms])
    assert ran.exit_code == 0, ran.output
    for expected in (
        "600 vectors of 2 features",
        "per 1,000",
        "something new",
        "finetune",
        "Suggested",
    ):
        assert expected in ran.stdout
    assert (tmp_path / "b.png").read_bytes()[1:4] == b"PNG"


def test_blank_cells_and_words_are_judged_as_learn_takes_them(file: Path, tmp_path: Path):
    """Rows with a blank cell are scored and learned; a column of words is a category."""
    lines = file.read_text().splitlines()
    lines = [f"{line},{'run' if row % 3 else 'idle'}" for row, line in enumerate(lines)]
    lines[0] = "when,temperature,humidity,status"
    for row in range(250, 290):
        when, temperature, _, status = lines[row].split(",")
        lines[row] = f"{when},{temperature},,{status}"
    lines[300] = lines[300].split(",")[0] + ",,,"
    gapped = tmp_path / "gapped.csv"
    gapped.write_text("\n".join(lines))
    command = ["backtest", str(gapped), "--time", "when", "--no-context", *RUN, "--json"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["features"] == ["temperature", "humidity", "status"]
    (lifetime,) = json.loads(ran.stdout)["lifetimes"]
    assert [batch["stop"] for batch in lifetime["batches"]] == [599]
    assert "line 301: every value is blank" in ran.stderr
    assert "status (category)" in ran.stderr


def test_codes_are_a_category_where_the_option_names_them(file: Path, tmp_path: Path):
    """`--category` makes a column of numbers a category, as `learn` does for a new detector."""
    lines = [f"{line},{row % 3}" for row, line in enumerate(file.read_text().splitlines())]
    lines[0] = "when,temperature,humidity,code"
    coded = tmp_path / "coded.csv"
    coded.write_text("\n".join(lines))
    command = ["backtest", str(coded), "--time", "when", "--no-context", *RUN]
    for more, expected in ([], False), (["--category", "code"], True):
        ran = CliRunner().invoke(app, [*command, *more])
        assert ran.exit_code == 0, ran.output
        assert ("code (category)" in ran.stderr) == expected


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--weights", "half"], "weights"),
        (["--strategy", "magic"], "strategy"),
        (["--fpr", "0.9"], "threshold.fpr"),
    ],
)
def test_bad_options_are_usage_errors(file: Path, given: list[str], why: str):
    """Wrong options are reported before anything is trained."""
    ran = CliRunner().invoke(app, ["backtest", str(file), *given])
    assert ran.exit_code == 2
    assert why in ran.output


def test_a_file_that_is_too_short_is_named(tmp_path: Path):
    """The message about a file that is too short names the file."""
    short = tmp_path / "short.csv"
    short.write_text("1,2\n" * 50)
    with pytest.raises(BadTable, match="50 rows; a backtest takes 100"):
        CliRunner().invoke(app, ["backtest", str(short)], catch_exceptions=False)
