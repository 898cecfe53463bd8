"""Calls about detectors: made, described, changed, deleted."""

from collections.abc import Mapping

from service.client.answers import DetectorStatus, Drift
from service.client.configs import DetectorConfig
from service.client.connection import Connection
from service.client.encoding import path, present, template_path
from service.client.transport import Call, as_json, listed, nothing


class Detectors(Connection):
    """Creates detectors, and returns their status."""

    def detectors(self, limit: int | None = None, after: str | None = None) -> list[DetectorStatus]:
        """Return the status of every detector by name; with `limit` of so many after a name."""
        sent = {"params": present(limit=limit, after=after)}
        return self.send(Call("GET", "/v1/detectors", listed("detectors", DetectorStatus), sent))

    def detector(self, name: str) -> DetectorStatus:
        """Return one detector's status."""
        return self.send(Call("GET", path(name), as_json(DetectorStatus)))

    def create(self, name: str, config: Mapping[str, object]) -> DetectorConfig:
        """Create a detector, or give it this config; return the config in full."""
        return self.send(Call("PUT", path(name), as_json(DetectorConfig), {"json": config}))

    def change(self, name: str, changes: Mapping[str, object]) -> DetectorConfig:
        """Change fields of a detector's config, the others stay; return the config in full."""
        return self.send(Call("PATCH", path(name), as_json(DetectorConfig), {"json": changes}))

    def delete(self, name: str) -> None:
        """Delete a detector with all it holds."""
        return self.send(Call("DELETE", path(name), nothing))

    def drift(self, name: str) -> Drift:
        """Return the drift state, and the tests behind it."""
        return self.send(Call("GET", path(name, "drift"), as_json(Drift)))

    def template(self, name: str) -> DetectorConfig:
        """Return the config that detectors `name:entity` are made with."""
        return self.send(Call("GET", template_path(name), as_json(DetectorConfig)))

    def put_template(self, name: str, config: Mapping[str, object]) -> DetectorConfig:
        """Make a template, or give it this config; return the config in full."""
        call = Call("PUT", template_path(name), as_json(DetectorConfig), {"json": config})
        return self.send(call)

    def delete_template(self, name: str) -> None:
        """Delete a template of which no entity's detector is left."""
        return self.send(Call("DELETE", template_path(name), nothing))
