"""Trace ids, by which a client finds its request again in what a training says.

A request names one in the header `traceparent` of W3C Trace Context.
"""

import re
from collections.abc import Iterable

MOST_TRACES = 10  # that one training names; the rest are in the buffer's entries

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(headers: list[str]) -> str:
    """Return the trace id of a request's headers `traceparent`; '' without one that is valid."""
    found = _FORM.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None:
        return ""
    version, trace, parent, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return ""
    return trace if trace.strip("0") and parent.strip("0") else ""


def some(traces: Iterable[str]) -> tuple[str, ...]:
    """Return the first trace ids, each once and none empty: at most `MOST_TRACES`."""
    return tuple(dict.fromkeys(trace for trace in traces if trace))[:MOST_TRACES]
