"""The command `anamnesis watch` against a running service."""

import asyncio
import sys

import pytest

from tests.contract.running import Running
from tests.contract.test_contract_incidents import ODD
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio


async def test_rows_from_standard_input_open_and_close_an_incident(
    api: Running, versions: Versions
) -> None:
    """The command says that it watches, names columns that it leaves out, and prints incidents."""
    await api.make(features=["a", "b", "c"])
    await api.serve(versions[0])
    usual, odd = [0.0] * 3, ODD
    rows = [usual, usual, *[odd] * 4, *[usual] * 12]
    lines = ["at,energy,c,b,a"]
    lines += [f"{1.7e9 + 60 * i},{i},{c},{b},{a}" for i, (a, b, c) in enumerate(rows)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.cli", "watch", "-", "-d", "pump", "--time", "at"),
        *("--url", str(api.http.base_url)), stdin=-1, stdout=-1, stderr=-1,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, error = await process.communicate("\n".join([*lines, ""]).encode())
    assert process.returncode == 0, error.decode()
    opened, closed, summary = out.decode().splitlines()
    assert opened.startswith("opened: incident, 2023-11-14 22:15:20 UTC: 1 row, severity")
    assert closed.startswith("closed: incident, 2023-11-14 22:15:20 to 2023-11-14 22:18:20 UTC: 4")
    assert summary == "4 of 18 rows were anomalies"
    assert 'the detector has no column "energy": left out' in error.decode()
    assert "-: watching; Ctrl-C ends" in error.decode()
