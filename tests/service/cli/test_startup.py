"""The command line starts fast: a command loads only what it needs."""

import subprocess
import sys

HEAVY = (
    "asyncio", "httpx", "msgspec", "numpy", "prometheus_client", "pydantic", "pydantic_settings",
    "redis", "structlog", "torch", "service.processes.supervisor", "service.settings",
)  # fmt: skip


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['anamnesis', *{arguments!r}]\n"
        "try:\n    runpy.run_module('anamnesis', run_name='__main__')\n"
        "finally:\n"
        f"    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_loads_no_store_and_no_supervisor() -> None:
    """`--help` loads no store, metrics, settings or supervisor."""
    ended = _run("--help")
    assert ended.returncode == 0, ended.stderr
    assert "Commands:" in ended.stdout
    assert ended.stderr.strip().splitlines()[-1] == "[]"


def test_version_prints_the_release() -> None:
    """`--version` prints the installed release."""
    ended = _run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("anamnesis ")
