"""The pages agree with the code: nothing is missing or outdated, and examples work."""

import json
import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import generate  # the script beside the pages
import pytest
import yaml

from models import Model, Replay
from service.cli.demo.own_service import running
from service.domain.detector_config import DetectorConfig, Retrain
from service.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ALL = "\n".join(page.read_text() for page in PAGES)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(name: str) -> str:
    """Return the page `docs/<name>.md`."""
    return (ROOT / "docs" / f"{name}.md").read_text()


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in `language`."""
    return [
        text
        for language_of_block, text in FENCE.findall(page.read_text())
        if language_of_block == language
    ]


@by_page
def test_generated_tables_are_current(page):
    """After a change of settings, metrics, errors or routes, `make docs` must run."""
    assert generate.current(page.read_text()) == page.read_text(), "run `make docs`"


@pytest.mark.parametrize("name", generate.TABLES)
def test_every_generated_table_is_on_one_page(name):
    """Each table is on exactly one page."""
    assert ALL.count(f"<!-- generated: {name} -->") == 1


def test_every_setting_is_documented():
    """Every setting is in the table, and no page names one that does not exist."""
    fields = {
        f"ANAMNESIS_{name.upper()}": model_field
        for name, model_field in Settings.model_fields.items()
    }
    listed = {name for name in fields if f"| `{name}` |" in read("configuration")}
    known = set(fields)
    assert listed == {name for name, field in fields.items() if not field.json_schema_extra}
    assert all(field.description for field in Settings.model_fields.values())
    named = set(re.findall(r"ANAMNESIS_[A-Z_]+[A-Z]", ALL))
    others = {"ANAMNESIS_CONFIG_FILE", "ANAMNESIS_DATA"}  # ANAMNESIS_DATA is for the benchmarks
    assert named == known | others


@pytest.mark.parametrize(
    ("part", "prefix"),
    [(DetectorConfig, ""), (Retrain, "retrain."), (Replay, "replay."), (Model, "")],
)
def test_every_field_of_a_config_is_documented(part, prefix):
    """Each field of a config has its own row, or one for each of its own fields."""
    for field in fields(part):
        shown = (f"`{prefix}{field.name}`", f"`{field.name}.")
        assert any(f"| {start}" in read("configuration") for start in shown), field.name


def test_every_route_metric_and_error_is_documented():
    """Every route, metric and error of the application is on its page."""
    api, metrics, errors = read("api"), read("metrics"), read("errors")
    described = generate.create_app(Settings(redis_url="unix:///nowhere")).openapi()
    assert all(f"`{path}`" in api for path in described["paths"])
    assert all(f"`{family.name}" in metrics for family, _ in generate.families())
    assert all(f"`/problems/{kind.slug}`" in errors for kind in generate.kinds())


def test_no_page_names_a_metric_that_is_not_there():
    """Every metric that a page or a rule names exists."""
    known = {family.name for family, _ in generate.families()}
    rules = (ROOT / "deploy/prometheus/rules/anamnesis.yml").read_text()
    for name in set(re.findall(r"\banamnesis_[a-z_]+[a-z]", ALL + rules)):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert name in known or base in known, name


def test_every_alert_has_a_section_in_the_runbook():
    """Each rule has a section in the operations page, and each section has a rule."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/anamnesis.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^### (Anamnesis\w+)$", read("operations"), re.MULTILINE)) == alerts


def test_the_page_of_operations_shows_its_tables():
    """The service's page has each table of the guide as a table, not as text with bars."""
    page = generate.operations_page()
    assert page.count("<table>") == read("operations").count("|---|---|")
    assert "|---" not in page


def test_commands_that_are_shown_exist():
    """Every `anamnesis ...` on a page is a command with those options; each command is shown."""
    commands = dict(generate.every_command())
    command = r"(?:^    |`|bin/)anamnesis ((?:(?:keys|quarantine) )?[a-z]+)([^`\n]*)"
    shown = re.findall(command, ALL, re.MULTILINE)
    assert {name for name, _ in shown} == set(commands)
    assert all(param.help for command in commands.values() for param in command.params)
    for name, rest in shown:
        options = {option for param in commands[name].params for option in param.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) <= options, f"{name}{rest}"


def test_no_shown_command_has_a_key_in_its_arguments():
    """Other users of a machine can read the arguments of each process."""
    scripts = [script.read_text() for script in (ROOT / "deploy").rglob("*.sh")]
    shown = re.findall(
        r"-H \"?(?:Authorization: Bearer|X-API-Key:|\$).*|--key \"?\$.*", "\n".join([ALL, *scripts])
    )
    assert not shown


def test_make_targets_that_are_shown_exist():
    """Every `make ...` on a page is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:^|`)make ([a-z-]+)(?:`|  )", ALL, re.MULTILINE))
    assert {"demo", "test", "run"} <= shown <= targets


@by_page
def test_links_lead_somewhere(page):
    """A relative link names an existing file, and an existing heading in it."""
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        target_path = (page.parent / path).resolve() if path else page
        assert target_path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target_path.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}
            assert anchor in slugs, target


@by_page
def test_paths_that_are_named_exist(page):
    """A path of the repository in backticks exists."""
    folders = "benchmarks|deploy|docs|examples|models|service|tests"
    for path in re.findall(rf"`(?:python )?((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


@by_page
def test_tests_that_are_named_exist(page):
    """Where a page names a test (`test_file.py::test_name`), the file has it."""
    file = ""
    for new_file, name in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", page.read_text()):
        file = new_file or file
        sources = [path.read_text() for path in (ROOT / "tests").rglob(file)] if file else []
        if file and name:
            assert any(f"def {name}(" in source for source in sources), f"{file}::{name}"
        elif file:
            assert sources, file


@by_page
def test_examples_can_be_read(page):
    """JSON is valid, TOML is valid settings, and Python is a doctest, which pytest runs."""
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "toml"):
        Settings(**tomllib.loads(text))
    # Those of the client's page need a service; tests/contract/test_client_page.py runs them.
    for text in blocks(page, "python") if page.name != "client.md" else ():
        assert text.startswith(">>> "), text


def test_the_walk_with_curl_works(tmp_path):
    """Every line of the walk succeeds against a new service."""
    (walk,) = blocks(ROOT / "docs" / "walk.md", "bash")
    assert walk.count("127.0.0.1:8000") == 2
    if shutil.which("curl") is None or "--json" not in _output_of(["curl", "--help", "all"]):
        pytest.skip("needs curl 7.82 or newer")
    with running(tmp_path / "data", keep=False) as url:
        # The walk ignores answers; here an error ends it.
        script = walk.replace("http://127.0.0.1:8000", url).replace("curl -s", "curl -sf")
        printed = _output_of(["bash", "-euc", f"set -o pipefail\n{script}"], tmp_path)
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    _, stored, outcome, scored, explained, status = answers
    assert stored["accepted"] == 500
    assert outcome["outcome"] == "promoted"
    (shown,) = (json.loads(text) for text in blocks(ROOT / "docs" / "walk.md", "json"))
    assert scored["is_anomaly"] == shown["is_anomaly"] == [False, True]
    assert [scored["threshold"], *scored["scores"]] == pytest.approx(
        [shown["threshold"], *shown["scores"]], rel=0.1
    ), "docs/walk.md shows the answer of an earlier model"
    assert explained["attributions"][0][0]["feature"] == "speed"
    assert status["champion"] == 1
    assert 'anamnesis_champion_version{detector="pump-7"} 1.0' in printed


def _output_of(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=360
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_page_has_the_marks_of_an_unfinished_merge() -> None:
    """No page, and no template made from a page, has a line with a mark of a merge conflict."""
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("service/**/*.html")]
    marked = [page for page in pages if re.search(r"^(<{7}|>{7}) ", page.read_text(), re.MULTILINE)]
    assert marked == []
