"""Trace ids: a client finds the retraining that learned its request by its trace id.

A request carries the id in the header `traceparent` of W3C Trace Context.
"""

import re
from collections.abc import Iterable

MOST_TRACES = 10  # ids that the record of one retraining names; the buffer's entries have all

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def trace_id(headers: list[str]) -> str:
    """Return the trace id in a request's `traceparent` headers, or '' if there is no valid one."""
    match = _FORM.fullmatch(headers[0]) if len(headers) == 1 else None
    if match is None:
        return ""
    version, trace, parent, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return ""
    return trace if trace.strip("0") and parent.strip("0") else ""


def distinct_traces(traces: Iterable[str]) -> tuple[str, ...]:
    """Return the first `MOST_TRACES` trace ids, each once; empty ids are left out."""
    return tuple(dict.fromkeys(trace for trace in traces if trace))[:MOST_TRACES]
