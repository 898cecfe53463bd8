"""Write what follows from other files, most of it tables in these pages: `make docs`.

Each table stands between `<!-- generated: NAME -->` and `<!-- end -->`. `--check` writes nothing
and ends with status 1 when a page is out of date.
"""  # noqa: INP001 - a script beside the pages, not a package

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import client_sources
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from prometheus_client import CollectorRegistry, Metric
from pydantic_core import PydanticUndefined

from service import problems
from service.api.app import create_app
from service.cli.__main__ import app as command_line
from service.domain.detector_config import DetectorConfig
from service.problems import Problem
from service.scoring.champions import Champions
from service.settings import Settings
from service.store import schema
from service.store.due_index import Work
from service.store.redis_keys import OF_THE_SERVICE, DetectorKey, Keys
from service.telemetry.metrics import Metrics
from service.telemetry.store_metrics import StoreMetrics

DOCS = Path(__file__).parent
DEPLOY = DOCS.parent / "deploy"
PAGE = DOCS.parent / "service" / "api" / "page"
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def settings() -> str:
    """Return every service setting but those for tests: variable, default, bounds, meaning."""
    return table(("variable", "default", "allowed", "what it is"), _settings())


def _settings() -> Iterator[tuple[str, ...]]:
    for name, field in Settings.model_fields.items():
        if field.json_schema_extra:
            continue
        unset = field.default in (None, PydanticUndefined)
        default = "" if unset else f"`{str(field.default).lower()}`"
        yield f"`ANAMNESIS_{name.upper()}`", default, _bounds(field), str(field.description)


def _bounds(field: Any) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most"}
    bounds = [
        f"{word} {getattr(rule, sign)}"
        for rule in field.metadata
        for sign, word in signs.items()
        if getattr(rule, sign, None) is not None
    ]
    return ", ".join(bounds)


def commands() -> str:
    """Return every command with its arguments and options."""
    return table(("command", "what it does", "options"), _commands())


def every_command() -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, `keys create` for one of a group."""
    root: Any = typer.main.get_command(command_line)
    for name, command in root.commands.items():
        parts = getattr(command, "commands", None)
        if parts is None:
            yield name, command
        else:
            yield from ((f"{name} {part}", command) for part, command in parts.items())


def _commands() -> Iterator[tuple[str, ...]]:
    for name, command in sorted(every_command()):
        arguments = [
            param.metavar for param in command.params if param.param_type_name == "argument"
        ]
        options = [
            f"`{', '.join(param.opts)}`: {param.help}"
            for param in command.params
            if param.param_type_name == "option"
        ]
        usage = " ".join(["anamnesis", name, *arguments])
        yield f"`{usage}`", command.help.partition("\n")[0], "<br>".join(options)


def config() -> str:
    """Return a detector's configuration in full, with its defaults."""
    defaults = DetectorConfig().to_dict()
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in defaults.items()]
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```"


def metrics() -> str:
    """Return every metric: name as scraped, type, labels, meaning."""
    return table(("metric", "type", "labels", "what it is"), _metrics())


def families() -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Yield every metric family of an API process, with its labels."""
    counted = Metrics(CollectorRegistry())
    # The registry forgets labels that nothing was counted under; its collectors know them.
    for collector in {id(c): c for c in _collectors(counted.registry)}.values():
        for family in collector.collect():
            yield family, tuple(collector._labelnames)  # noqa: SLF001
    store: Any = SimpleNamespace(redis_up=True, worker_heartbeat=0.0, work=Work(0, 0, 0.0))
    for family in StoreMetrics(Champions(1), store, buffer_bound=1).collect():
        yield family, tuple(getattr(family, "_labelnames", ()))


def _collectors(registry: CollectorRegistry) -> list[Any]:
    return list(registry._names_to_collectors.values())  # noqa: SLF001 - it has no public list


def _metrics() -> Iterator[tuple[str, ...]]:
    rows = []
    for family, labels in families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, ", ".join(labels), family.documentation))
    yield from sorted(rows)


def errors() -> str:
    """Return every problem type: status, type, title, meaning."""
    return table(("status", "type", "title", "when"), _errors())


def kinds(base: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yield `base` and all its subclasses in `service.problems`."""
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == problems.__name__:
            yield from kinds(kind)


def _errors() -> Iterator[tuple[str, ...]]:
    for kind in sorted(kinds(), key=lambda kind: (kind.status, kind.slug)):
        when = (kind.__doc__ or "").partition("\n")[0]
        again = f" `Retry-After: {kind.retry_after}`." if kind.retry_after else ""
        yield str(kind.status), f"`/problems/{kind.slug}`", kind.title, when + again


def routes() -> str:
    """Return every route: method, path, meaning, scope, statuses."""
    return table(("method", "path", "what it does", "scope", "answers"), _routes())


def _routes() -> Iterator[tuple[str, ...]]:
    app = create_app(Settings(redis_url="unix:///nowhere"))
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            statuses = ", ".join(sorted(str(status) for status in operation["responses"]))
            needs = operation.get("security", [{"key": ["none"]}])
            scopes = " or ".join(need["key"][0] for need in needs)
            yield method.upper(), f"`{path}`", operation["summary"], scopes, statuses


def keys() -> str:
    """Return every Redis key, and what it holds."""
    return table(("key", "what it holds"), _keys())


def _keys() -> Iterator[tuple[str, ...]]:
    keys = Keys("NAME")
    for name, member in vars(Keys).items():
        if isinstance(member, DetectorKey):
            yield f"`{getattr(keys, name)}`", member.about
        elif name in _WITH_ARGUMENT:
            yield f"`{_WITH_ARGUMENT[name]}`", _first(member)
    for key, about in OF_THE_SERVICE.items():
        yield f"`{key}`", about


# Keys whose names depend on more than the detector's.
_WITH_ARGUMENT = {
    "lease": "anamnesis:{NAME}:lease:ROLE",
    "artifact": "anamnesis:{NAME}:artifact:SHA256",
    "idempotency": "anamnesis:{NAME}:idempotency:SHA256",
    "labels_idempotency": "anamnesis:{NAME}:idempotency:SHA256:labels",
    "traffic_seen": "anamnesis:{NAME}:traffic_seen:PROCESS",
    "answers": "anamnesis:{NAME}:answers:SENDER",
}


def _first(member: object) -> str:
    summary = (member.__doc__ or "").partition("\n")[0].removeprefix("Return the ")
    return summary[:1].upper() + summary[1:]


def fields() -> str:
    """Return every field of what is kept in hashes and streams, and what it holds."""
    return table(("kept in", "field", "what it holds"), _fields())


def _fields() -> Iterator[tuple[str, ...]]:
    for where, fields in schema.TABLES.values():
        for field in fields.values():
            yield where, f"`{field.stored}`", field.about


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "config": config,
    "errors": errors,
    "fields": fields,
    "keys": keys,
    "metrics": metrics,
    "routes": routes,
    "settings": settings,
}


def current(text: str) -> str:
    """Return the page with its tables as the code has them."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", text)


_RULE = """\
# Written by `make docs` from deploy/prometheus/rules/anamnesis.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: anamnesis
spec:
"""


def prometheus_rule() -> str:
    """Return the alert rules as Prometheus' operator takes them."""
    rules = (DEPLOY / "prometheus" / "rules" / "anamnesis.yml").read_text()
    return _RULE + textwrap.indent(rules[rules.index("groups:") :], "  ")


_PAGE = """\
{# Written by `make docs` from docs/operations.md. #}
{% extends "base.html" %}
{% block title %}Operations · anamnesis{% endblock %}
{% block content %}
{% raw %}
"""


# On a small screen a wide table scrolls by itself, also with the keyboard.
_SCROLL = '<div class="scroll" tabindex="0" role="region" aria-label="Table of alerts">'


def operations_page() -> str:
    """Return the operations guide as a template of the page, to which the alerts link."""
    markdown = MarkdownIt().enable("table")
    tokens = markdown.parse((DOCS / "operations.md").read_text())
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            words = re.sub(r"[^\w -]", "", inline.content.lower())
            heading.attrSet("id", words.replace(" ", "-"))  # as in GitHub's links
    for token in tokens:
        token.children = _without_links_to_files(token.children)
    body = markdown.renderer.render(tokens, markdown.options, {})
    body = body.replace("<table>", f"{_SCROLL}<table>").replace("</table>", "</table></div>")
    return f"{_PAGE}{body}{{% endraw %}}\n{{% endblock %}}\n"


def _without_links_to_files(tokens: list[Token] | None) -> list[Token] | None:
    """Keep the text of links to other files, which the service does not have."""
    tokens_kept, open_links = [], []
    for token in tokens or ():
        if token.type == "link_open":
            open_links.append(str(token.attrGet("href")).startswith(("#", "https:")))
        if token.type not in {"link_open", "link_close"} or open_links[-1]:
            tokens_kept.append(token)
        if token.type == "link_close":
            open_links.pop()
    return None if tokens is None else tokens_kept


def files() -> dict[Path, str]:
    """Return every file that follows from the code, with the text that it should have."""
    texts = {page: current(page.read_text()) for page in sorted(DOCS.glob("*.md"))}
    document = create_app(Settings(redis_url="unix:///nowhere")).openapi()
    texts[DOCS / "openapi.json"] = json.dumps(document, indent=1) + "\n"
    texts[DEPLOY / "kubernetes" / "overlays" / "monitoring" / "rules.yaml"] = prometheus_rule()
    texts[PAGE / "templates" / "operations.html"] = operations_page()
    return texts | {path: formatted(text) for path, text in client_sources.files(document)}


def formatted(source: str) -> str:
    """Return a module as ruff writes it."""
    ruff = (sys.executable, "-m", "ruff")
    for command in (("check", "--quiet", "--select", "I,F401", "--fix", "-"), ("format", "-")):
        done = subprocess.run(
            [*ruff, *command], input=source, stdout=-1, text=True, check=True, cwd=DOCS.parent
        )
        source = done.stdout
    return source


def main() -> int:
    """Write or check every file; return the exit status."""
    late = {
        path: text for path, text in files().items()
        if not path.exists() or path.read_text() != text
    }  # fmt: skip
    for path, text in late.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.name} is out of date: make docs\n")
        else:
            path.write_text(text)
    return int(bool(late) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
