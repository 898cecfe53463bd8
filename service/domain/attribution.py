"""How much a feature contributed to a row's score, as answers, events and incidents show it."""

from msgspec import Struct

Cell = float | int | str | None


class Attribution(Struct, frozen=True):
    """How much one feature contributed to a row's score, with the value seen and expected."""

    feature: str
    contribution: float
    value: Cell
    expected: Cell


def numeric(value: Cell) -> float | None:
    """Return the value as a number, None for a category or a blank."""
    return float(value) if isinstance(value, int | float) else None
