"""The faults of `crashes`, in their short form; `python -m tests.faults` is the long one."""

from tests.faults import crashes
from tests.faults.short_form import short_form

test_the_promise_is_kept = short_form(crashes)
