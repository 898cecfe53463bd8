"""Ages by clocks that may be set back."""


def is_over(age: float, seconds: float) -> bool:
    """Return whether `seconds` have passed for what is `age` seconds old.

    An age is negative after its clock was set back. What is further ahead than `seconds` counts as
    over, so that nothing waits longer than twice as long as it should.
    """
    return not -seconds <= age < seconds
