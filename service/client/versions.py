"""Calls about versions: their records, their artifacts, and the choice of the champion."""

from service.client.answers import Generation, Promoted, Sample, VersionRecord
from service.client.connection import sends
from service.client.encoding import only_if, page, path
from service.client.transport import Call, as_bytes, as_json, listed

_SAFETENSORS = "application/vnd.safetensors"


class Versions:
    """Shows versions, exports and imports them, and chooses the champion."""

    @sends
    def versions(
        self, name: str, *, limit: int | None = None, after: int | None = None
    ) -> Call[list[VersionRecord]]:
        """Return every version's record; with `limit`, those of a page, newest first.

        `after` is the number of the last one of the page before.
        """
        read = listed("versions", VersionRecord)
        return Call("GET", path(name, "versions"), read, page(limit, after))

    @sends
    def version(self, name: str, number: int) -> Call[VersionRecord]:
        """Return one version's record."""
        return Call("GET", path(name, "versions", number), as_json(VersionRecord))

    @sends
    def artifact(self, name: str, number: int) -> Call[bytes]:
        """Return one version's artifact."""
        return Call("GET", path(name, "versions", number, "artifact"), as_bytes)

    @sends
    def sample(self, name: str, number: int, n: int = 25, seed: int = 0) -> Call[Sample]:
        """Return n rows that the generator of a version draws."""
        sent = {"params": {"n": n, "seed": seed}}
        return Call("GET", path(name, "versions", number, "sample"), as_json(Sample), sent)

    @sends
    def import_version(self, name: str, artifact: bytes) -> Call[VersionRecord]:
        """Store an artifact as a new version. The version serves after it is promoted."""
        sent = {"content": artifact, "headers": {"content-type": _SAFETENSORS}}
        return Call("POST", path(name, "versions"), as_json(VersionRecord), sent, repeatable=False)

    @sends
    def promote(
        self, name: str, number: int, generation: int | None = None, *, why: str = ""
    ) -> Call[Promoted]:
        """Make a version the champion; with `generation`, only if this generation is current."""
        sent = {"json": {"version": number, "why": why}, "headers": only_if(generation)}
        return Call("PUT", path(name, "champion"), as_json(Promoted), sent, repeatable=False)

    @sends
    def generations(
        self, name: str, *, limit: int = 100, after: int | None = None
    ) -> Call[list[Generation]]:
        """Return the latest changes of the champion, each with its time, person and reason.

        `after` is the generation of the last one of the page before.
        """
        read = listed("generations", Generation)
        return Call("GET", path(name, "generations"), read, page(limit, after))
