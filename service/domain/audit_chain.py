"""The hash chain of the audit trail, and where it breaks."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson


def broken(entries: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the number of the first entry that does not follow from the one before it, or None.

    What the hash covers is the entry as compact JSON, without `previous` and `hash`, its fields
    in the order in which they came.
    """
    before: Mapping[str, Any] | None = None
    for entry in entries:
        own = {key: value for key, value in entry.items() if key not in {"previous", "hash"}}
        text = orjson.dumps(own)
        digest = hashlib.sha1(entry["previous"].encode() + text, usedforsecurity=False).hexdigest()
        follows = before is None or (
            entry["previous"] == before["hash"] and entry["seq"] == before["seq"] + 1
        )
        if digest != entry["hash"] or not follows:
            return int(entry["seq"])
        before = entry
    return None
