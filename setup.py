"""How a wheel is laid out; everything else about the distribution is in pyproject.toml.

A checkout, and an editable install of it, has the packages `models` and `service`. A wheel has
them as `anamnesis.models` and `anamnesis.service`: names so common would collide with those of
the projects it is installed for. Imports are rewritten on the way, line by line.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

HOME = "anamnesis"
MOVED = ("models", "service")
_EXAMPLE = re.compile(rf"^(\s*(?:>>>|\.\.\.) (?:from|import) )(?=(?:{'|'.join(MOVED)})\b)")


class BuildWheel(build_py):
    """Builds as ever, then moves the packages below `anamnesis`."""

    def run(self) -> None:
        """Build; an editable install keeps the checkout's own names."""
        super().run()
        if not self.editable_mode:
            move(Path(self.build_lib))


class TopLevel(egg_info):
    """Says that `anamnesis` is the one package of the distribution."""

    def run(self) -> None:
        """Write the metadata."""
        super().run()
        Path(self.egg_info, "top_level.txt").write_text(f"{HOME}\n")


def move(root: Path) -> None:
    """Move `models` and `service` in `root` below `anamnesis`, with the imports of all three."""
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for name in MOVED
        for path in (root / name).rglob("*.py")
    }
    for name in MOVED:
        shutil.rmtree(root / HOME / name, ignore_errors=True)
        shutil.move(root / name, root / HOME / name)
    for path in (root / HOME).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(rewritten(text, modules), encoding="utf-8")


def rewritten(source: str, modules: set[str]) -> str:
    """Return `source` with `anamnesis.` before every mention of one of `modules` as a module.

    That is in import statements, in the examples of docstrings, and in strings that are exactly
    the dotted name of a module (`python -m service.trainer`). No line is added or taken away.
    """
    lines = source.splitlines(keepends=True)
    for number, before, name in sorted(set(_mentions(ast.parse(source), modules))):
        line = lines[number - 1]
        if before + name not in line:
            raise ValueError(f"line {number}: {name} is not written on one line")
        lines[number - 1] = line.replace(before + name, f"{before}{HOME}.{name}")
    return "".join(_EXAMPLE.sub(rf"\1{HOME}.", line) for line in lines)


def _mentions(tree: ast.Module, modules: set[str]) -> Iterator[tuple[int, str, str]]:
    """Yield each mention of a module: its line, what stands before its name, its name."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _moved(node.module or ""):
            yield node.lineno, "from ", node.module or ""
        elif isinstance(node, ast.Import):
            for alias in filter(lambda alias: _moved(alias.name), node.names):
                yield node.lineno, "import ", alias.name
                bound |= {alias.name.partition(".")[0]} - {alias.asname}
        elif isinstance(node, ast.Constant) and node.value in modules - set(MOVED):
            yield node.lineno, '"', str(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in bound:
            raise ValueError(f"line {node.lineno}: import the module from its package instead")


def _moved(module: str) -> bool:
    return module.partition(".")[0] in MOVED


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWheel, "egg_info": TopLevel})
