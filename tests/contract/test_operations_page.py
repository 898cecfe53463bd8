"""Every command of the pages for operators runs unchanged, against a service with keys."""

import asyncio
import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Version
from service.cli import __main__ as cli
from service.cli.console import Exit
from service.settings import Settings
from service.store.connection import connect
from tests.contract.running import Running, running
from tests.service.stored import monitor_over
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "operations.md", DOCS / "deployment.md"]
PUMP = "/v1/detectors/pump-7"
ODD, SENDER = [70.0, 70.0, 70.0], "9f86d081884c7d65"
STARTS = {"up", "api", "worker"}  # commands that start processes; tests/processes tests those


def commands() -> Iterator[str]:
    """Yield the commands of the pages in order, from blocks and from sentences."""
    pattern = r"^ {4,}(anamnesis .*|sed .*)$|`(?:\w+=\S+ )?(anamnesis\s[a-z][^`]*)`"
    text = "\n".join(page.read_text() for page in PAGES)
    for block, inline in re.findall(pattern, text, re.MULTILINE):
        command = " ".join((block or inline).split())
        if command.split()[1] not in STARTS:
            yield command


async def run(command: str) -> tuple[int, str]:
    """Run the command line in this process; return exit status and output."""

    def call() -> tuple[int, str]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                cli.main()
            except SystemExit as ended:
                return int(ended.code or 0), output.getvalue()
        return 0, output.getvalue()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.argv", shlex.split(command))
        return await asyncio.to_thread(call)


@pytest.fixture
async def pump(
    store_url: str, versions: Versions, tmp_path: Path, monkeypatch: Any
) -> AsyncIterator[Running]:
    """Serve `pump-7` at version 3 under an admin's key; the environment has URL and key."""
    key_file = tmp_path / "admin-key"
    key_file.write_text("a" * 40)
    async with running(store_url, poll_seconds=0.2, admin_key_file=key_file) as api:
        api.http.headers["authorization"] = f"Bearer {'a' * 40}"
        named = {"URL": api.http.base_url, "KEY_FILE": key_file, "REDIS_URL": store_url}
        for name, value in (named | {"PORT": api.port}).items():
            monkeypatch.setenv(f"ANAMNESIS_{name}", str(value))
        monkeypatch.delenv("ANAMNESIS_DATA", raising=False)  # the commands warn of it
        monkeypatch.chdir(tmp_path)
        await api.make("pump-7")
        for number, version in enumerate((versions[0], versions[1], versions[1]), start=1):
            assert await api.learn(version, "pump-7") == number
        await api.serving(3, "pump-7")
        yield api


@pytest.fixture
async def examples(pump: Running, store_url: str) -> dict[str, Any]:
    """Make an incident, rows in quarantine, and a sender with batches; return their ids."""
    made = await pump.http.post("/v1/keys", json={"name": "press", "scopes": ["ingest"]})
    sender = {"authorization": f"Bearer {made.json()['key']}"}
    body = {"vectors": np.random.default_rng(3).normal(1.0, size=(40, 3)).tolist()}

    async def is_accepted() -> bool:  # every process knows a key within two seconds
        answer = await pump.http.post(f"{PUMP}/normal", json=body, headers=sender)
        return answer.status_code == 202

    await until(is_accepted)
    # Before the incident, because rows that come during one are released with its dismissal.
    for far in (80.0, 90.0):
        accepted = await pump.http.post(f"{PUMP}/normal", json={"vectors": [[far] * 3] * 2})
        assert accepted.json()["quarantined"] == 2
    await pump.http.post(f"{PUMP}/score", json={"vectors": [[1.0] * 3] * 20 + [ODD] * 4})
    await pump.parts.reporter.flush()
    async with await connect(store_url, deadline=20.0) as redis:
        monitor = monitor_over(redis, Settings(lease_seconds=30.0))
        await monitor.tick()
        await monitor.close()
    (incident,) = (await pump.http.get(f"{PUMP}/incidents")).json()["incidents"]
    event = (await pump.http.get(f"{PUMP}/events")).json()["events"][0]
    waiting = (await pump.http.get(f"{PUMP}/quarantine")).json()["quarantine"]
    return {
        "KEY": made.json()["id"], "INCIDENT": incident["id"], "EVENT": event["id"],
        "ENTRIES": [entry["id"] for entry in waiting],
    }  # fmt: skip


def with_ids(command: str, examples: dict[str, Any], port: int) -> str:
    """Return a command with a version, the ids that a person would fill in, and the test's port."""
    entry = examples["ENTRIES"].pop() if " ENTRY" in command else ""
    values = {
        "INCIDENT": examples["INCIDENT"], "EVENT": examples["EVENT"], "ENTRY": entry,
        "NAME": "pump-7", "VERSION": "3",
        "ID": examples["KEY"], SENDER: examples["KEY"], "127.0.0.1:8000": f"127.0.0.1:{port}",
    }  # fmt: skip
    for name, value in values.items():
        command = re.sub(rf"(?<![\w.]){re.escape(name)}\b", str(value), command)
    return command


async def test_every_command_for_operators_works(pump: Running, examples: dict[str, Any]) -> None:
    """Each command exits with 0; `status` exits with 5 while something needs a person."""
    printed: dict[str, str] = {}
    for command in commands():
        real = with_ids(command, examples, pump.port)
        if command.startswith("sed "):
            await asyncio.to_thread(subprocess.run, real, shell=True, check=True)
            continue
        if "keys revoke" in command:  # must be the last one
            continue
        status, output = await run(real)
        expected = Exit.ATTENTION if command == "anamnesis status" else Exit.OK
        if " retrain " in command:  # here no worker runs, and the command says so
            expected = Exit.REFUSED
            assert "waits for one: start `anamnesis worker`" in output
        assert status == expected, (real, output)
        printed.setdefault(command, output)
    status, output = await run(with_ids("anamnesis keys revoke ID", examples, pump.port))
    assert status == Exit.OK, output
    artifact = await asyncio.to_thread(Path("artifact").read_bytes)
    assert Version.from_bytes(artifact).dimension == 3
    assert "rows wait for a person" in printed["anamnesis status"]
    assert "store up" in printed["anamnesis status"]
    lines = [line.split() for line in printed["anamnesis status"].splitlines()]
    header = next(i for i, words in enumerate(lines) if words[1:2] == ["version"])
    assert " ".join(lines[header]) == "detector version age alarms asked incidents drift for"
    name, version, age, unit, alarms, _, asked, _, incidents, *_ = lines[header + 1]
    assert (name, version, asked, incidents) == ("pump-7", "3", "1", "1")
    assert (int(age) >= 0, unit in {"s", "min"}) == (True, True)
    assert float(alarms) > 1
    assert examples["INCIDENT"] in printed["anamnesis incidents pump-7 --state open"]
    assert examples["EVENT"] in printed["anamnesis events pump-7 --limit 5"]
    assert (
        "are labelled normal"
        in printed[next(command for command in printed if " INCIDENT " in command)]
    )
    assert "labelled anomaly" in printed["anamnesis label pump-7 EVENT anomaly"]
    assert "2 vectors" in printed["anamnesis quarantine release pump-7 ENTRY"]
    assert "deleted: " in printed["anamnesis quarantine discard pump-7 ENTRY"]
    assert "is paused" in printed["anamnesis pause pump-7"]
    assert "goes on" in printed["anamnesis resume pump-7"]
    assert printed["anamnesis drift pump-7"].startswith("pump-7: ")
    assert "pages nobody" in printed['anamnesis mute pump-7 --for 2h --why "planned work"']
    assert "pages and learns again" in printed["anamnesis unmute pump-7"]
