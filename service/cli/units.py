"""Finds the unit that a column's numbers are written with, such as the `ms` of `1.4 ms`."""

import re
from collections.abc import Sequence

from service.domain.cells import is_blank, is_number, is_word

_NUMBER = r"[+\N{MINUS SIGN}-]?\d[\d.,'\N{NO-BREAK SPACE} ]*(?:[eEdD][+-]?\d+)?+"
_AFTER = re.compile(rf"({_NUMBER})\s*([^\d\s.,:;'/%+_-]\S{{0,9}})")
_BEFORE = re.compile(rf"([$€£¥])\s*({_NUMBER})")  # money


def split(cell: str) -> tuple[str, str]:
    """Return the number and the unit of a cell. Without a unit, return the cell and "".

    >>> split("1,389.5 ms"), split("21°C"), split("$12.50"), split("5e3")
    (('1,389.5', 'ms'), ('21', '°C'), ('12.50', '$'), ('5e3', ''))
    """
    text = cell.strip()
    if match := _AFTER.fullmatch(text):
        return match[1].rstrip(), match[2]
    if match := _BEFORE.fullmatch(text):
        return match[2], match[1]
    return cell, ""


def common(cells: Sequence[str], *, comma: bool = False) -> str:
    """Return the unit that all numbers of a column are written with, "" if there is no such unit.

    With `comma`, the decimal sign is a comma. Words, such as `no signal`, have no unit.

    >>> common(["1.4 ms", "", "2 ms"]), common(["1 s", "2 ms"]), common(["1 s", "2"])
    ('ms', '', '')
    """
    parts = (split(cell) for cell in cells if not (is_blank(cell) or is_word(cell)))
    first, unit = next(parts, ("", ""))
    if not unit or not is_number(first, comma=comma):
        return ""
    same = all(own_unit == unit and is_number(number, comma=comma) for number, own_unit in parts)
    return unit if same else ""


def without(cells: Sequence[str], unit: str) -> Sequence[str]:
    """Return the cells with `unit` taken from each number that has it. Others stay as they are."""
    parts = (split(cell) for cell in cells)
    return [
        number if own_unit == unit else cell
        for cell, (number, own_unit) in zip(cells, parts, strict=True)
    ]
