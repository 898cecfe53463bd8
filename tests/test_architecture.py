"""The structure of the code: who may import whom, and who alone may do what."""

import ast
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.kind_table import KINDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "service")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
LONGEST = 350  # lines of a file
# Declared libraries that have no wheels for some versions of Python.
NOT_EVERYWHERE = {"simdjson"}

# What the learning may import; parts of the standard library that reach outside are below.
LEARNING_LIBRARIES = {"msgspec", "numpy", "river", "safetensors", "scipy", "sklearn", "torch"}
OUTSIDE = {"asyncio", "http", "os", "socket", "subprocess", "threading", "time", "urllib"}

# These modules pass the store's connection to adapters or name its type; they use no command.
CARRIERS = {
    "service.store.adapters",
    "service.worker.drift_monitor",
    "service.worker.janitor",
    "service.worker.worker",
}


# Every module of the project with its syntax tree.
TREES = {module: ast.parse(path.read_text(), str(path)) for module, path in SOURCES.items()}


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield every imported module, wherever the statement is; submodules by their own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in SOURCES else str(node.module)


IMPORTS = {module: set(imports(tree)) for module, tree in TREES.items()}


def importers(library: str) -> set[str]:
    """Return the project's modules that import `library` or a part of it."""
    return {
        module
        for module, imported in IMPORTS.items()
        if any(name == library or name.startswith(f"{library}.") for name in imported)
    }


def test_every_import_is_declared():
    """`pyproject.toml` declares every library that is imported; none comes along by chance."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(extra for name in extras if name != "dev" for extra in extras[name]),
    ]
    declared = {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}
    tops = {name.partition(".")[0] for imported in IMPORTS.values() for name in imported}
    distributions = importlib.metadata.packages_distributions()
    foreign = tops - sys.stdlib_module_names - {*PACKAGES, "anamnesis"} - NOT_EVERYWHERE
    assert foreign & distributions.keys()
    undeclared = {
        name
        for name in foreign
        if not declared & {_normal(distribution) for distribution in distributions.get(name, ())}
    }
    assert not undeclared


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_models_never_imports_service():
    """`models` never imports `service`."""
    assert not {module for module in importers("service") if module.startswith("models")}
    assert importers("models") & {module for module in SOURCES if module.startswith("service")}


def test_models_imports_numeric_libraries_alone():
    """`models` imports numeric libraries only: no HTTP, no store, no environment, no clock."""
    for module, imported in IMPORTS.items():
        if module.startswith("models"):
            heads = {name.partition(".")[0] for name in imported}
            assert not heads & OUTSIDE, module
            foreign = heads - LEARNING_LIBRARIES - {"models"}
            # This module finds the kinds of model by a table in the sources.
            foreign -= {"importlib"} if module == "models.version.kind" else set()
            assert foreign <= STANDARD, (module, foreign - STANDARD)


STANDARD = {
    "bisect",
    "collections",
    "dataclasses",
    "datetime",  # for times in the rows, never the present time
    "functools",
    "hashlib",
    "html",
    "itertools",
    "json",
    "math",
    "operator",
    "pathlib",
    "re",
    "typing",
    "warnings",
    "zlib",
    "zoneinfo",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_form_no_cycle(package):
    """There is no import cycle; imports for types and imports inside functions count too."""
    graph = {
        module: {name for name in imported if name in SOURCES and name.startswith(package)}
        - {module}
        for module, imported in IMPORTS.items()
        if module.startswith(package)
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_only_service_store_sends_commands():
    """Only modules of `service.store` import `ask` and `Script`, which send commands."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "service.store.connection":
                names = {alias.name for alias in node.names}
                assert module.startswith("service.store.") or not names & {"ask", "Script"}, module


LOADS_LITTLE = """
import sys
import {module}
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{*"{foreign}".split()}}))
print(*sorted(name for name in sys.modules if name.startswith(("service.", "models."))))
"""


@pytest.mark.parametrize(
    ("module", "foreign", "ours"),
    [
        (
            "service.scoring.core",
            "redis fastapi starlette uvicorn torch prometheus_client",
            ("service.store", "service.api", "service.swap", "service.telemetry"),
        ),
        (
            "service.client.client",
            "redis fastapi starlette uvicorn torch prometheus_client",
            ("service.store", "service.processes", "service.domain", "models"),
        ),
        (
            "service.domain.api_key",
            "redis fastapi starlette uvicorn torch prometheus_client",
            ("service.store",),
        ),
        (
            ", ".join(place.module for place in KINDS.values()),
            "torch",
            ("models.vae", "models.strategies", "models.training"),
        ),
    ],
)
def test_a_subpackage_loads_only_what_it_needs(module, foreign, ours):
    """Importing one part loads no library or part that it does not need."""
    code = LOADS_LITTLE.format(module=module, foreign=foreign)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    libraries, parts = done.stdout.split("\n")[:2]
    assert not libraries
    assert not [part for part in parts.split() if part.startswith(ours)]


def test_modules_that_carry_the_connection_send_no_command():
    """A module that carries the connection only passes it on or closes it."""
    for module, tree in TREES.items():
        if module not in CARRIERS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name.lstrip("_") in {"redis", "client"}:
                    assert node.attr == "aclose", f"{module}, line {node.lineno}: .{node.attr}"


def bounded_adapters() -> dict[str, str]:
    """Return the adapters with a bound, given alone or in the settings, with their modules."""
    return {
        node.name: module
        for module, tree in TREES.items()
        if module.startswith("service.store.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name == "__init__"
        if [arg.arg for arg in part.args.args][1:2] == ["redis"]
        if any(part.args.kw_defaults) or "settings" in [arg.arg for arg in part.args.args]
    }


def test_adapters_with_bounds_are_made_in_one_place():
    """Only `service/store/adapters.py` makes them, so that all processes have the same bounds."""
    homes = bounded_adapters()
    assert {"ApiKeys", "Buffer", "Detectors", "LabelStore", "Registry", "TrafficStore"} <= set(
        homes
    )
    makers = [
        (module, name)
        for module, tree in TREES.items()
        if any(imported.startswith("service.store") for imported in IMPORTS[module])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if (name := ast.unparse(node.func).rpartition(".")[2]) in homes and module != homes[name]
    ]
    assert {module for module, _ in makers} == {"service.store.adapters"}, makers
    assert {name for _, name in makers} == set(homes)


def test_key_names_are_made_in_one_place():
    """Only one file spells the keys of the store."""
    for module, path in SOURCES.items():
        if module != "service.store.redis_keys":
            assert not re.search(r"[\"']anamnesis:[a-z{]", path.read_text()), module


def test_only_the_settings_read_the_environment():
    """Only the settings read the environment."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            reads = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
            from_os = isinstance(node, ast.ImportFrom) and node.module == "os"
            imported = {alias.name for alias in node.names} if from_os else set()
            reads = reads or bool(imported & {"environ", "getenv"})
            assert module == "service.settings" or not reads, module


def test_one_place_makes_the_application():
    """`FastAPI()` is called in `service/api/app.py`, once."""
    makers = [
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FastAPI"
    ]
    assert makers == ["service.api.app"]


def test_no_module_uses_pickle():
    """No module uses pickle in any form."""
    for module in SOURCES:
        heads = {name.partition(".")[0] for name in IMPORTS[module]}
        assert not heads & {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}, module
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in {"torch.load", "torch.save", "eval", "exec"}, module
                for keyword in node.keywords:
                    if keyword.arg == "allow_pickle":
                        assert ast.unparse(keyword.value) == "False", module


GENERATED = {"service.client.answers"}  # `make docs` writes it; nobody reads it whole


@pytest.mark.parametrize("module", [module for module in SOURCES if module not in GENERATED])
def test_no_file_is_longer_than_the_bound(module):
    """A file that grows past the bound must be divided."""
    assert len(SOURCES[module].read_text().splitlines()) <= LONGEST
