"""Variables with our prefix: finds settings, variables of the platform, and misspelt names.

Kubernetes sets variables for each Service of a namespace. For a Service named `anamnesis` it sets
`ANAMNESIS_PORT=tcp://10.0.0.7:8000` and others, which are not settings.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping

PREFIX = "ANAMNESIS_"

_LINK_NAME = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes made this variable to describe one of its Services."""
    name = name.upper()
    return bool(
        _LINK_NAME.fullmatch(name) or (name.endswith("PORT") and _LINK_VALUE.fullmatch(value))
    )


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with our prefix, by setting name, without those of Kubernetes."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not is_service_link(name, value)
    }


def misspelt(names: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Yield a message for each of `names` that is not a setting, with the most similar setting."""
    for name in sorted(set(names) - set(known)):
        shown = "".join(c if c.isalnum() or c == "_" else "?" for c in name)[:64]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; perhaps {PREFIX}{near[0].upper()} is meant" if near else ""
        yield f"{PREFIX}{shown.upper()} is not a setting{hint}"
