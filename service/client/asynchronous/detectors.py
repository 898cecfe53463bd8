"""Calls that create, show, change and delete detectors and templates.

Written by `make docs` from the module of the same name one folder up.
"""

from collections.abc import Mapping

from service.client.answers import DetectorStatus, Drift
from service.client.asynchronous.connection import AsyncConnection
from service.client.configs import DetectorConfig
from service.client.encoding import path, present, template_path
from service.client.transport import Call, as_json, listed, nothing


class Detectors(AsyncConnection):
    """Creates detectors, and returns their status."""

    async def detectors(
        self, limit: int | None = None, after: str | None = None
    ) -> list[DetectorStatus]:
        """Return statuses in the order of names, at most `limit`, from the name after `after`."""
        sent = {"params": present(limit=limit, after=after)}
        return await self.send(
            Call("GET", "/v1/detectors", listed("detectors", DetectorStatus), sent)
        )

    async def detector(self, name: str) -> DetectorStatus:
        """Return one detector's status."""
        return await self.send(Call("GET", path(name), as_json(DetectorStatus)))

    async def create(self, name: str, config: Mapping[str, object]) -> DetectorConfig:
        """Create a detector, or set its config; return the config in full."""
        return await self.send(Call("PUT", path(name), as_json(DetectorConfig), {"json": config}))

    async def change(self, name: str, changes: Mapping[str, object]) -> DetectorConfig:
        """Change some fields of a detector's config; return the config in full."""
        return await self.send(
            Call("PATCH", path(name), as_json(DetectorConfig), {"json": changes})
        )

    async def delete(self, name: str) -> None:
        """Delete a detector with all its data."""
        return await self.send(Call("DELETE", path(name), nothing))

    async def drift(self, name: str) -> Drift:
        """Return the drift state of a detector, and the statistical tests that decided it."""
        return await self.send(Call("GET", path(name, "drift"), as_json(Drift)))

    async def template(self, name: str) -> DetectorConfig:
        """Return the config of a template, which new detectors `name:entity` get."""
        return await self.send(Call("GET", template_path(name), as_json(DetectorConfig)))

    async def create_template(self, name: str, config: Mapping[str, object]) -> DetectorConfig:
        """Create a template, or set its config; return the config in full."""
        call = Call("PUT", template_path(name), as_json(DetectorConfig), {"json": config})
        return await self.send(call)

    async def delete_template(self, name: str) -> None:
        """Delete a template. The detectors of its entities must be deleted first."""
        return await self.send(Call("DELETE", template_path(name), nothing))
