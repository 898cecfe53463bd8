"""The short form of the catalogue: the faults of one module as one test, for `make test`."""

from collections.abc import Awaitable, Callable
from types import ModuleType

import pytest

from tests.faults.catalogue import FAULTS


def short_form(module: ModuleType) -> Callable[[str], Awaitable[None]]:
    """Return a test of every fault that `module` entered and that has a short form.

    Each module of faults has a file of tests, so that the files can run side by side.
    """
    entered = [
        name
        for name, fault in FAULTS.items()
        if fault.run.__module__ == module.__name__ and fault.short
    ]

    @pytest.mark.anyio
    @pytest.mark.faults
    @pytest.mark.parametrize("name", entered)
    async def test(name: str) -> None:
        """What the fault's line in the catalogue promises holds."""
        fault = FAULTS[name]
        print(await fault.run(fault.short))  # noqa: T201

    return test
