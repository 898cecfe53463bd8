"""Calls that create, show, change and delete detectors and templates."""

from collections.abc import Mapping

from service.client.answers import DetectorStatus, Drift
from service.client.configs import DetectorConfig
from service.client.connection import sends
from service.client.encoding import only_if, path, present, template_path
from service.client.transport import Call, as_json, listed, nothing


class Detectors:
    """Creates detectors, and returns their status."""

    @sends
    def detectors(
        self, limit: int | None = None, after: str | None = None, *, recent: bool = False
    ) -> Call[list[DetectorStatus]]:
        """Return statuses in the order of names, at most `limit`, from the name after `after`.

        With `recent` they say what happened within the last hour.
        """
        read = listed("detectors", DetectorStatus)
        query = present(limit=limit, after=after, recent="true" if recent else None)
        return Call("GET", "/v1/detectors", read, {"params": query})

    @sends
    def detector(self, name: str) -> Call[DetectorStatus]:
        """Return one detector's status."""
        return Call("GET", path(name), as_json(DetectorStatus))

    @sends
    def create(
        self,
        name: str,
        config: Mapping[str, object],
        *,
        new: bool = False,
        generation: int | None = None,
    ) -> Call[DetectorConfig]:
        """Create a detector, or set its config; return the config in full.

        With `new` the call changes no existing detector, with `generation` no other generation.
        """
        sent = {"json": config, "headers": only_if(generation, new=new)}
        return Call("PUT", path(name), as_json(DetectorConfig), sent, repeatable=not new)

    @sends
    def change(
        self, name: str, changes: Mapping[str, object], *, generation: int | None = None
    ) -> Call[DetectorConfig]:
        """Change some fields of a detector's config; return the config in full."""
        sent = {"json": changes, "headers": only_if(generation)}
        return Call("PATCH", path(name), as_json(DetectorConfig), sent)

    @sends
    def delete(self, name: str, *, generation: int | None = None) -> Call[None]:
        """Delete a detector with all its data."""
        return Call("DELETE", path(name), nothing, {"headers": only_if(generation)})

    @sends
    def drift(self, name: str) -> Call[Drift]:
        """Return the drift state of a detector, and the statistical tests that decided it."""
        return Call("GET", path(name, "drift"), as_json(Drift))

    @sends
    def template(self, name: str) -> Call[DetectorConfig]:
        """Return the config of a template, which new detectors `name:entity` get."""
        return Call("GET", template_path(name), as_json(DetectorConfig))

    @sends
    def create_template(
        self, name: str, config: Mapping[str, object], *, new: bool = False
    ) -> Call[DetectorConfig]:
        """Create a template, or set its config; return the config in full."""
        sent = {"json": config, "headers": only_if(new=new)}
        where = template_path(name)
        return Call("PUT", where, as_json(DetectorConfig), sent, repeatable=not new)

    @sends
    def delete_template(self, name: str) -> Call[None]:
        """Delete a template. The detectors of its entities must be deleted first."""
        return Call("DELETE", template_path(name), nothing)
