"""Writes a number together with its noun, in the singular or the plural."""


def counted(number: int, noun: str) -> str:
    """Return `number` and `noun`, with an `s` unless the number is one.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
