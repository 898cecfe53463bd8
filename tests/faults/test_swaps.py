"""The faults of `swaps`, in their short form; `python -m tests.faults` is the long one."""

from tests.faults import swaps
from tests.faults.short_form import short_form

test_the_promise_is_kept = short_form(swaps)
