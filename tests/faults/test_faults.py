"""Every fault of the catalogue, in its short form; `python -m tests.faults` is the long one."""

import pytest

from tests.faults import artifacts, crashes, going_back, learning, peers, schema, stores, swaps  # noqa: F401 - they enter their faults
from tests.faults.catalogue import FAULTS

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.short])
async def test_the_promise_is_kept(name):
    """What the fault's line in the catalogue promises holds."""
    fault = FAULTS[name]
    print(await fault.run(fault.short))  # noqa: T201
