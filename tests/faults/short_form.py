"""The short form of the catalogue: the faults of one module as one test."""

from collections.abc import Awaitable, Callable
from types import ModuleType

import pytest

from tests.faults.catalogue import FAULTS

# `make test` tries one fault of each kind. These are the others of each kind.
ONLY_IN_TEST_ALL = {
    "api_killed_before_the_write",
    "api_killed_while_revoking",
    "api_killed_while_rows_are_held_back",
    "equal_batches_at_once",
    "power_lost",
    "rollback_during_a_retraining",
    "rollback_under_load",
    "schema_fuzzed",
    "slow_connections",
    "store_absent_at_start",
    "store_emptied",
    "store_out_of_memory",
    "store_paused",
    "store_read_only",
    "store_restored_from_a_backup",
    "store_weakened",
    "store_too_weak",
    "swaps_under_load",
    "terminated_under_load",
    "training_hangs",
    "training_not_finite",
    "way_to_the_store_broken",
    "worker_killed_after_promote",
    "worker_killed_training",
    "workers_race",
}


def short_form(module: ModuleType) -> Callable[[str], Awaitable[None]]:
    """Return a test of every fault that `module` entered and that has a short form.

    Each module of faults has a file of tests, so that the files can run side by side.
    """
    entered = [
        pytest.param(name, marks=pytest.mark.thorough if name in ONLY_IN_TEST_ALL else ())
        for name, fault in FAULTS.items()
        if fault.run.__module__ == module.__name__ and fault.short
    ]

    @pytest.mark.anyio
    @pytest.mark.faults
    @pytest.mark.parametrize("name", entered)
    async def test(name: str) -> None:
        """The promise of the fault in the catalogue holds."""
        fault = FAULTS[name]
        print(await fault.run(fault.short))  # noqa: T201

    return test
