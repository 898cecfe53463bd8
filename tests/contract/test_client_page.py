"""The examples of docs/client.md run unchanged against a running service."""

import asyncio
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.contract.running import Running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()


def block(language: str, number: int = 0) -> str:
    """Return a code block of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


async def run(api: Running, code: str, *command: str) -> str:
    """Return what an example prints; the test's service replaces the page's."""
    here = code.replace("127.0.0.1:8000", f"127.0.0.1:{api.port}")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=-1, stderr=-1, cwd=ROOT
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate(here.encode())
    assert process.returncode == 0, error.decode()
    return out.decode()


async def learned(api: Running, versions: Versions) -> None:
    """Give `press-3` the version that it would learn from its 400 vectors."""
    await api.make("press-3")
    await api.learn(versions[0], "press-3")
    await api.serving(1, "press-3")


async def test_the_curl_example_works(api: Running):
    """The shell's example creates a detector and buffers two vectors."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    out = await run(api, block("sh"), "sh", "-e")
    assert '"accepted":2' in out
    assert '"buffered":2' in out


async def test_the_python_example_works(api: Running, versions: Versions):
    """The example in Python scores, explains, and shows an error."""
    await learned(api, versions)
    out = await run(api, block("python"), sys.executable, "-W", "error", "-")
    first, second = out.splitlines()
    assert first.startswith("[False, True] ")
    assert second == "422 0 2"


async def test_the_javascript_example_works(api: Running, versions: Versions):
    """The example in JavaScript scores."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node on this machine")
    await learned(api, versions)
    assert await run(api, block("js"), node, "--input-type=module", "-") == "2 [ false, true ]\n"


async def test_the_open_inference_protocol_example_works(api: Running, versions: Versions):
    """The example of the Open Inference Protocol scores."""
    pytest.importorskip("tritonclient.http")
    await learned(api, versions)
    out = await run(api, block("python", 1), sys.executable, "-")
    assert out == f"{np.array([True])}\n"
