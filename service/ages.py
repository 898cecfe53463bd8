"""Ages measured with clocks that may be set back."""


def is_over(age: float, seconds: float) -> bool:
    """Return whether something that is `age` seconds old is older than `seconds`.

    An age is negative after the clock was set back. An age below `-seconds` counts as older, so
    nothing waits longer than twice `seconds`.
    """
    return not -seconds <= age < seconds
