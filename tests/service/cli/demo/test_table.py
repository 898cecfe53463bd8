"""The demonstration's table explains each of its headings."""

import io

import numpy as np
import pytest
from rich.console import Console

from service.cli.demo.table import Row, shown


@pytest.mark.parametrize("heading", ["strategy", "w_prev / w_new", "AUROC", "newest, oldest"])
def test_the_note_below_the_table_explains(heading: str) -> None:
    """No heading is left to a guess."""
    console = Console(file=io.StringIO(), width=1000)
    row = Row(1, "replay", 1, 0.0, 1.0, 2.0, 1.0, {1: 0.01}, 0.01, np.zeros((1, 64)))
    list(shown(iter([row]), console, 0.01))
    assert isinstance(console.file, io.StringIO)
    assert f"{heading}: " in console.file.getvalue()
