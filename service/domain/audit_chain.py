"""Entries of an audit trail, their chain of hashes, and the search for a break in the chain."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Self

import msgspec
import orjson

from service.json_value import JsonObject, JsonValue

_CHAIN = ("previous", "hash")


class AuditEntry(msgspec.Struct, frozen=True):
    """One change: who made it, when, why, and the values before and after.

    `at` is in milliseconds since 1970. `hash` covers the JSON of this entry and `previous`, which
    is the hash of the entry before. The JSON may have more fields that describe the action.
    """

    seq: int
    at: int
    before: JsonValue = msgspec.field(name="from")
    after: JsonValue = msgspec.field(name="to")
    action: str
    who: str
    why: str
    previous: str
    hash: str


class WrittenEntry(AuditEntry, frozen=True):
    """An entry with its compact JSON as it was written; the hash covers these bytes."""

    written: bytes

    @classmethod
    def read(cls, written: bytes, previous: str, digest: str) -> Self:
        """Return the entry with the stored JSON `written`."""
        fields = orjson.loads(written)
        return cls(
            fields["seq"], fields["at"], fields["from"], fields["to"],
            fields["action"], fields["who"], fields["why"], previous, digest, written,
        )  # fmt: skip

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Self:
        """Return the entry in the document of an answer."""
        written = {name: value for name, value in document.items() if name not in _CHAIN}
        return cls.read(orjson.dumps(written), *(str(document[name]) for name in _CHAIN))

    def to_dict(self) -> JsonObject:
        """Return the document for an answer."""
        fields: JsonObject = orjson.loads(self.written)
        return fields | {"previous": self.previous, "hash": self.hash}

    @property
    def intact(self) -> bool:
        """Whether the entry matches its hash."""
        whole = self.previous.encode() + self.written
        return hashlib.sha1(whole, usedforsecurity=False).hexdigest() == self.hash

    def follows(self, before: "WrittenEntry | None") -> bool:
        """Return whether this entry was written right after `before`; True if that is None."""
        return before is None or (self.previous == before.hash and self.seq == before.seq + 1)


def broken(entries: Iterable[WrittenEntry]) -> int | None:
    """Return the number of the first entry that breaks the chain, or None if it is unbroken."""
    before: WrittenEntry | None = None
    for entry in entries:
        if not (entry.intact and entry.follows(before)):
            return entry.seq
        before = entry
    return None
