"""Calls about versions: their records, their artifacts, and the choice of the champion."""

from service.client.answers import Generation, Promoted, Sample, VersionRecord
from service.client.connection import Connection
from service.client.encoding import path, present
from service.client.transport import Call, as_bytes, as_json, listed

_SAFETENSORS = "application/vnd.safetensors"


class Versions(Connection):
    """Shows versions, exports and imports them, and chooses the champion."""

    def versions(self, name: str) -> list[VersionRecord]:
        """Return every version's record."""
        return self.send(Call("GET", path(name, "versions"), listed("versions", VersionRecord)))

    def version(self, name: str, number: int) -> VersionRecord:
        """Return one version's record."""
        return self.send(Call("GET", path(name, "versions", number), as_json(VersionRecord)))

    def artifact(self, name: str, number: int) -> bytes:
        """Return one version's artifact."""
        return self.send(Call("GET", path(name, "versions", number, "artifact"), as_bytes))

    def sample(self, name: str, number: int, n: int = 25, seed: int = 0) -> Sample:
        """Return n rows that the generator of a version draws."""
        sent = {"params": {"n": n, "seed": seed}}
        return self.send(
            Call("GET", path(name, "versions", number, "sample"), as_json(Sample), sent)
        )

    def import_version(self, name: str, artifact: bytes) -> VersionRecord:
        """Store an artifact as a new version. The version serves after it is promoted."""
        sent = {"content": artifact, "headers": {"content-type": _SAFETENSORS}}
        return self.send(
            Call("POST", path(name, "versions"), as_json(VersionRecord), sent, repeatable=False)
        )

    def promote(self, name: str, number: int, generation: int | None = None) -> Promoted:
        """Make a version the champion; with `generation`, only if this generation is current."""
        tag = None if generation is None else f'"{generation}"'
        sent = {"json": {"version": number}, "headers": present(**{"if-match": tag})}
        return self.send(
            Call("PUT", path(name, "champion"), as_json(Promoted), sent, repeatable=False)
        )

    def generations(self, name: str) -> list[Generation]:
        """Return every change of the champion, with its time, person and reason."""
        read = listed("generations", Generation)
        return self.send(Call("GET", path(name, "generations"), read))
