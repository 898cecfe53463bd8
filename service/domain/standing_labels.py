"""Which labels of people still have an effect after another version became champion."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from service.domain.event import Label


class Standing(NamedTuple):
    """How many labels still have an effect.

    The gate checks `normal` and `anomaly` labels at the next retraining. The champion did not learn
    `unlearned` of the normal rows. `spared` is the number of dismissed incidents and labelled
    events; rows similar to theirs page nobody.
    """

    normal: int
    anomaly: int
    unlearned: int
    spared: int


def standing(labels: Sequence[Label], left: Container[str], spared: int) -> Standing:
    """Return the labels that have an effect, if the champion did not learn the batches `left`."""
    normal = [one for one in labels if one.label == "normal"]
    unlearned = sum(one.batch is not None and one.batch in left for one in normal)
    return Standing(len(normal), len(labels) - len(normal), unlearned, spared)


def effect_of_move(number: int, forgotten: int, acting: Standing) -> str:
    """Return sentences on the move to version `number`, which did not learn `forgotten` vectors.

    >>> effect_of_move(1, 0, Standing(normal=0, anomaly=0, unlearned=0, spared=2))
    'Version 1 serves. Rows like those of 2 dismissals still page nobody.'
    >>> effect_of_move(2, 0, Standing(0, 0, 0, 0))
    'Version 2 serves.'
    """
    sentences = [f"Version {number} serves."]
    if forgotten:
        sentences.append(f"It does not know the {forgotten:,} vectors learned since.")
    if acting.normal or acting.anomaly:
        sentences.append(
            f"The gate still checks {acting.normal:,} normal and {acting.anomaly:,} anomaly labels."
        )
    if acting.unlearned:
        sentences.append(
            f"This version did not learn {acting.unlearned:,} rows labelled normal; they may alarm "
            "again."
        )
    if acting.spared:
        sentences.append(f"Rows like those of {acting.spared:,} dismissals still page nobody.")
    return " ".join(sentences)
