"""A mistyped command gets one line: no traceback, no secret, and a status for scripts."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from service.cli import __main__ as cli
from service.cli.console import Exit

SECRET = "geheim-0123456789"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path) -> Callable[..., tuple[int, str]]:
    """Run a command in an empty folder; return its status and its output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage").write_bytes(b"\xff\xfe\x00" + SECRET.encode())
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    (tmp_path / "rows.csv").write_text("1,2\n3,4\n")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["anamnesis", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out + written.err

    return run


URLS = [
    f"http://user:{SECRET}@127.0.0.1:1", f"user:{SECRET}@127.0.0.1:1", "http://", "http://[::1",
    "http://127.0.0.1:99999", "http://127.0.0.1:port", "ftp://127.0.0.1", "file:///etc/passwd",
    "http://127.0.0.1:0", "http://a b", "http://exa\nmple", "127.0.0.1:1", "[::1]:1", "//", "",
    "http://" + "a" * 300 + ".example",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", [("detectors",), ("score", "rows.csv", "-d", "pump")])
def test_bad_addresses_have_different_messages(run, url, command):
    """An impossible address and one without a service have different messages."""
    status, words = run(*command, "--url", url)
    assert status in (Exit.USAGE, Exit.UNREACHABLE)
    assert "Traceback" not in words
    assert SECRET not in words


KEYS = [f"{SECRET}\n{SECRET}", f"a {SECRET}", f"{SECRET}ü", f"{SECRET}\0", " ", "\r\n"]


@pytest.mark.parametrize("key", KEYS)
def test_an_impossible_key_is_a_usage_error(run, key):
    """A key that no header can hold is a usage error, and the key is not repeated."""
    status, words = run("detectors", "--key", key)
    assert status == Exit.USAGE
    assert "the API key is not valid" in words
    assert SECRET not in words


@pytest.mark.parametrize("file", ["folder", "garbage", "absent"])
@pytest.mark.parametrize("setting", ["ANAMNESIS_KEY_FILE", "ANAMNESIS_CA_FILE"])
def test_an_unusable_settings_file_is_named(run, monkeypatch, setting, file):
    """The message about an unusable settings file names the file and the reason."""
    monkeypatch.setenv(setting, file)
    status, words = run("detectors", "--url", "https://127.0.0.1:1")
    assert status == Exit.USAGE
    assert file in words
    assert "Traceback" not in words
    assert SECRET not in words


@pytest.mark.parametrize("file", ["folder", "absent", "folder/x/y", "rows.csv/x", "x" * 5000])
@pytest.mark.parametrize("command", ["score", "learn"])
def test_a_file_without_vectors_is_a_usage_error(run, command, file):
    """A file that holds no vectors is a usage error."""
    status, words = run(command, file, "-d", "pump", "--url", "http://127.0.0.1:1")
    assert status in (Exit.USAGE, Exit.UNREACHABLE)  # `learn` first asks for the detector
    assert "Traceback" not in words


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "a" * 70), ("--host", "no such host"), ("--port", "99999"), ("--port", "x"),
        ("--data-dir", "rows.csv"), ("--data-dir", "rows.csv/x"), ("--data-dir", "/proc/x"),
        ("--tls-cert", "absent"), ("--tls-cert", "garbage"), ("--tls-cert", "folder"),
        ("--tls-key", "garbage"), ("--workers", "0"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_start_says_why(run, options):
    """A service that cannot start says why."""
    status, words = run("up", "--port", "0", "--data-dir", "data", *options)
    assert status in (Exit.REFUSED, Exit.USAGE)
    assert "Traceback" not in words
    assert SECRET not in words


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        (setting, file)
        for setting in (
            "ANAMNESIS_ADMIN_KEY_FILE", "ANAMNESIS_METRICS_KEY_FILE", "ANAMNESIS_TLS_CERT",
            "ANAMNESIS_SIGNING_KEY_FILE", "ANAMNESIS_TRUSTED_KEYS_FILE",
            "ANAMNESIS_WEBHOOK_SECRET_FILE",
        )
        for file in ("absent", "folder", "garbage", "pipe", "/dev/zero")
    ],
)  # fmt: skip
def test_an_unusable_secret_is_reported_by_its_setting(run, monkeypatch, setting, file):
    """A secret that cannot be used is reported by its setting's name before anything runs."""
    monkeypatch.setenv(setting, file)
    monkeypatch.setenv("ANAMNESIS_WEBHOOK_URL", "http://127.0.0.1:1")
    status, words = run("up", "--port", "0", "--data-dir", "data")
    assert status in (Exit.REFUSED, Exit.USAGE)
    assert setting in words
    assert "Traceback" not in words
    assert SECRET not in words


@pytest.mark.parametrize("file", ["absent", "folder", "garbage"])
def test_a_check_with_an_unusable_certificate_names_its_setting(run, monkeypatch, file):
    """`anamnesis ready` names the setting of a certificate that cannot be used."""
    monkeypatch.setenv("ANAMNESIS_TLS_CERT", file)
    status, words = run("ready", "--port", "1")
    assert status == Exit.USAGE
    assert "ANAMNESIS_TLS_CERT" in words
    assert "Traceback" not in words


def test_a_closed_standard_input_is_no_traceback():
    """A closed standard input, as under a service manager, is reported without a traceback."""
    code = "import sys; sys.stdin = None; sys.argv = ['anamnesis', 'score', '-', '-d', 'pump', "
    code += "'--url', 'http://127.0.0.1:1']; from service.cli.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == Exit.USAGE
    assert "standard input is closed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_closed_standard_streams(tmp_path):
    """If the standard streams are closed, no opened file gets a descriptor from 0 to 2."""
    code = """
import sys
from service.cli.__main__ import main
file, sys.argv = sys.argv[1], ["anamnesis", "--version"]
try:
    main()
except SystemExit:
    pass
with open(file, "w") as opened:
    opened.write(f"{opened.fileno() > 2} {sys.stderr.isatty()}")
"""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    subprocess.run([*closed, str(tmp_path / "seen")], check=True)
    assert (tmp_path / "seen").read_text() == "True False"


INTERRUPTED = """
import os, signal, sys
from anamnesis.__main__ import main

class Interrupt:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
main()
"""


def test_an_interrupt_while_the_command_is_loaded_is_no_traceback():
    """Ctrl-C in the first half second ends a command as a signal does, without a word."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGINT
    assert not ended.stderr


def test_a_misspelt_variable_is_reported_once(run, monkeypatch):
    """A misspelt variable is reported once with the most similar setting, and the command runs."""
    monkeypatch.setenv("ANAMNESIS_KEYFILE", SECRET)
    status, words = run("detectors", "--url", "http://127.0.0.1:1")
    assert status == Exit.UNREACHABLE
    hint = "ANAMNESIS_KEYFILE is not a setting; perhaps ANAMNESIS_KEY_FILE is meant; it is ignored"
    assert words.count(hint) == 1
    assert SECRET not in words
