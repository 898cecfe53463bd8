"""Names in the environment that begin with our prefix: settings, the platform's, and misspelt ones.

Kubernetes describes each Service of a namespace in variables: one named `anamnesis` makes
`ANAMNESIS_PORT=tcp://10.0.0.7:8000` and more, which are no settings.
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
    """Return whether a platform made this variable to describe one of its services."""
    return bool(_LINK_NAME.fullmatch(name.upper()) or _LINK_VALUE.fullmatch(value))


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is given under our prefix, by the setting's name; service links left out."""
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not is_service_link(name, value)
    }


def misspelt(given: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Yield a few words on each name that is no setting, with the nearest one that is."""
    for name in sorted(set(given) - set(known)):
        shown = "".join(c if c.isalnum() or c == "_" else "?" for c in name)[:64]
        near = difflib.get_close_matches(name, known, 1)
        hint = f", perhaps {PREFIX}{near[0].upper()} is meant" if near else ""
        yield f"{PREFIX}{shown.upper()} is no setting{hint}"
