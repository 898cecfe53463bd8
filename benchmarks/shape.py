"""Count the structure of the code: `make shape`.

For each package: subpackages, files, lines, functions and their lengths, annotations that say
nothing (`dict[str, Any]`, `Mapping[str, Any]`, and names that stand for one), modules that import
the Redis driver, and pairs of subpackages where one imports the other.
"""

import argparse
import ast
import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
VAGUE = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, Any\]")
ALIAS = re.compile(
    r"^(\w+)(?:: TypeAlias)? = [^({\n]*" + VAGUE.pattern + r"[^({\n]*$", re.MULTILINE
)


def shape(root, package):
    """Return the figures of `root`/`package` by name."""
    files = sorted((root / package).rglob("*.py"))
    texts = {file: file.read_text() for file in files}
    trees = {file: ast.parse(text) for file, text in texts.items()}
    lengths = [
        node.end_lineno - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    arrows, drivers = set(), 0
    for file, tree in trees.items():
        here = subpackage_of(file.relative_to(root).with_suffix("").parts)
        named = [name for node in ast.walk(tree) for name in imported(node)]
        arrows |= {
            (here, there)
            for name in named
            if name.startswith(("models", "service"))
            and (there := subpackage_of(name.split("."))) != here
        }
        drivers += any(name.partition(".")[0] == "redis" for name in named)
    return {
        "subpackages": len({file.parent for file in files}),
        "files": len(files),
        "lines": sum(len(text.splitlines()) for text in texts.values()),
        "longest file": max(len(text.splitlines()) for text in texts.values()),
        "functions": len(lengths),
        "median function": statistics.median(lengths),
        "functions over 50 lines": sum(length > 50 for length in lengths),
        "vague dicts": count_vague(texts.values()),
        "files with the Redis driver": drivers,
        "arrows between subpackages": len(arrows),
    }


def count_vague(texts):
    """Count annotations that are vague, and each use of a name that stands for one."""
    text = "\n".join(texts)
    names = ALIAS.findall(text)
    uses = (len(re.findall(rf"\b{name}\b", text)) - names.count(name) for name in set(names))
    return len(VAGUE.findall(text)) + sum(uses)


def subpackage_of(parts):
    """Return the subpackage of a module by the parts of its name."""
    return ".".join(parts[:2]) if len(parts) > 2 else parts[0]


def imported(node):
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []


def main():
    """Print one column for each package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout to count")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {package: shape(options.root, package) for package in ("models", "service")}
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':28}{'models':>9}{'service':>9}")
    for name in results["models"]:
        print(f"{name:28}{results['models'][name]:>9}{results['service'][name]:>9}")


if __name__ == "__main__":
    main()
