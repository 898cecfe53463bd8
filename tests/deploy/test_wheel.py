"""The wheel has one package `anamnesis`, which collides with nothing in a user's project."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import setup
from models import Config, Model, train
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# In a user's folder, any of these would end the process if it were imported.
HOSTILE = ("models/__init__.py", "service/__init__.py", "tests/__init__.py")
# Modules of an extra that are not named like their distribution.
MODULES = {"scikit-learn": "sklearn"}
REFUSING = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refusing())
"""


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout, and unpack it as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("anamnesis", "models", "service"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    build = "import setuptools.build_meta as b; b.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a user's project that has its own `models`, `service` and `tests`."""
    for name in HOSTILE:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("raise SystemExit('a module of the project was imported')\n")
    return tmp_path


def environment(unpacked_wheel: Path, *absent: str) -> dict[str, str]:
    """Return the variables of a process that finds the wheel, and no module of `absent`."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
    if absent:
        refusing = unpacked_wheel.parent / f"without-{'-'.join(absent)}"
        refusing.mkdir(exist_ok=True)
        names = {MODULES.get(name, name) for name in absent}
        (refusing / "sitecustomize.py").write_text(REFUSING.format(names=names))
        return variables | {"PYTHONPATH": f"{refusing}{os.pathsep}{unpacked_wheel}"}
    return variables | {"PYTHONPATH": str(unpacked_wheel)}


def python(project: Path, env: dict[str, str], code: str) -> str:
    """Return the output of `code`, run in the user's project."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def distributions(extra: str) -> set[str]:
    """Return the distributions that only `extra` needs."""

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[^A-Za-z0-9-]", line)[0] for line in lines}

    extras = PROJECT["optional-dependencies"]
    other_distributions = names(PROJECT["dependencies"])
    for other in {"serve", "train"} - {extra}:
        other_distributions |= names(extras[other])
    return names(extras[extra]) - other_distributions


def test_only_anamnesis_is_installed(unpacked_wheel: Path) -> None:
    """The wheel contains only the package `anamnesis` and its metadata."""
    assert {path.name.partition("-")[0] for path in unpacked_wheel.iterdir()} == {"anamnesis"}
    (top,) = unpacked_wheel.glob("*.dist-info/top_level.txt")
    assert top.read_text().split() == ["anamnesis"]


def test_the_wheel_has_every_module_and_its_types(unpacked_wheel: Path) -> None:
    """Every source file of the checkout is in the wheel with as many lines, and with its types."""
    for name in ("models", "service"):
        for path in (ROOT / name).rglob("*.py"):
            packed = unpacked_wheel / "anamnesis" / path.relative_to(ROOT)
            assert len(packed.read_text().splitlines()) == len(path.read_text().splitlines())
        assert (unpacked_wheel / "anamnesis" / name / "py.typed").exists()
    assert (unpacked_wheel / "anamnesis" / "py.typed").exists()


def test_the_library_works_in_a_project_with_names_like_ours(
    unpacked_wheel: Path, project: Path
) -> None:
    """`from anamnesis import ...` trains, saves and loads beside a foreign `models`."""
    code = """
import numpy as np
from anamnesis import Client, Config, Model, Version, train
X = np.random.default_rng(0).normal(size=(200, 3)).astype("f4")
train(None, X, Config(model=Model(epochs=2, hidden=(8,), latent=2))).save("v.safetensors")
print(len(Version.load("v.safetensors").score(X)), Client.__module__.partition(".")[0])
"""
    assert python(project, environment(unpacked_wheel), code) == "200 anamnesis"


def test_a_bare_install_scores_without_either_extra(unpacked_wheel: Path, project: Path) -> None:
    """The library's scoring, the client and the command line need neither `serve` nor `train`."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    train(None, X, Config(model=Model(epochs=1))).save(project / "v.safetensors")
    bare = environment(
        unpacked_wheel, *sorted(distributions("serve") | distributions("train") | {"redis"})
    )
    code = (
        "from anamnesis import Client, Version; import numpy as np;"
        "print(Version.load('v.safetensors').is_anomaly(np.full((1, 2), 99, 'f4'))[0])"
    )
    assert python(project, bare, code) == "True"


def test_an_api_process_needs_no_training_library(unpacked_wheel: Path, project: Path) -> None:
    """The application starts with the dependencies of the extra `serve` alone."""
    env = environment(unpacked_wheel, *sorted(distributions("train")))
    code = (
        "from anamnesis.service.settings import Settings;"
        "from anamnesis.service.api.app import create_app;"
        "print(create_app(Settings(redis_url='redis://127.0.0.1:1/0')).title)"
    )
    assert python(project, env, code) == "anamnesis"


@pytest.fixture
def running(unpacked_wheel: Path, project: Path) -> Iterator[Path]:
    """Run `anamnesis up` in the user's project; return the file with its output."""
    log = project / "up.log"
    command = [sys.executable, "-P", "-m", "anamnesis", "up", "--port", "0"]
    with log.open("wb") as out:
        up = subprocess.Popen(
            command,
            cwd=project,
            env=environment(unpacked_wheel),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    yield log
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0, log.read_text()


def test_up_runs_in_a_project_with_names_like_ours(running: Path) -> None:
    """`anamnesis up` starts store, API and worker in such a project, and answers."""
    wait_for(lambda: "http://127.0.0.1:" in running.read_text(), "up", running)
    assert "Error" not in running.read_text()


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("from models import train\n", "from anamnesis.models import train\n"),
        ("from service.a import b as c\n", "from anamnesis.service.a import b as c\n"),
        ("def f():\n    from service.a import (\n        b,\n    )\n",
         "def f():\n    from anamnesis.service.a import (\n        b,\n    )\n"),
        ("import service.a as a, os\n", "import anamnesis.service.a as a, os\n"),
        ('run("-m", "service.a")\n', 'run("-m", "anamnesis.service.a")\n'),
        ('"""Ground.\n\n>>> from models import x\n"""\n',
         '"""Ground.\n\n>>> from anamnesis.models import x\n"""\n'),
        ('say("service")\nfrom modelsx import y\n# from service.a import b\n',
         'say("service")\nfrom modelsx import y\n# from service.a import b\n'),
    ],
)  # fmt: skip
def test_imports_are_rewritten_and_nothing_else(source: str, rewritten: str) -> None:
    """Imports, module names in strings and examples get the package; nothing else changes."""
    assert setup.rewritten(source, {"models", "service", "service.a"}) == rewritten


def test_a_name_that_the_rewriting_would_break_ends_the_build() -> None:
    """The build fails if code uses `models.vae` after `import models.vae`."""
    with pytest.raises(ValueError, match="line 2"):
        setup.rewritten("import models.vae\nmodels.vae.VAE\n", {"models", "models.vae"})


def test_the_command_calls_a_module_of_checkout_and_wheel() -> None:
    """The command calls a module that exists both in the checkout and in the wheel."""
    assert PROJECT["scripts"] == {"anamnesis": "anamnesis.__main__:main"}
