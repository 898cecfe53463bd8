"""Which of the labels that people gave still act once another version serves."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from service.domain.event import Label


class Standing(NamedTuple):
    """How many labels act, and how.

    `normal` and `anomaly` labels are kept, and the gate asks for them at the next retraining.
    `unlearned` of the normal ones were learned by versions that were left behind. Rows like those
    of `spared` dismissed incidents and labelled events page nobody.
    """

    normal: int
    anomaly: int
    unlearned: int
    spared: int


def standing(labels: Sequence[Label], left: Container[str], spared: int) -> Standing:
    """Return which labels act where the batches `left` are not learned any more."""
    normal = [one for one in labels if one.label == "normal"]
    unlearned = sum(one.batch is not None and one.batch in left for one in normal)
    return Standing(len(normal), len(labels) - len(normal), unlearned, spared)


def told(number: int, forgotten: int, acting: Standing) -> str:
    """Return the effect of a move to version `number`, which lacks `forgotten` vectors, in words.

    >>> told(1, 0, Standing(normal=0, anomaly=0, unlearned=0, spared=2))
    'Version 1 serves. Rows like those of 2 dismissals still page nobody.'
    >>> told(2, 0, Standing(0, 0, 0, 0))
    'Version 2 serves.'
    """
    said = [f"Version {number} serves."]
    if forgotten:
        said.append(f"It does not know the {forgotten:,} vectors learned since.")
    if acting.normal or acting.anomaly:
        said.append(
            f"Of the labels {acting.normal:,} normal and {acting.anomaly:,} anomaly still act: the "
            "gate asks for them."
        )
    if acting.unlearned:
        said.append(
            f"This version did not learn {acting.unlearned:,} rows labelled normal; they may alarm "
            "again."
        )
    if acting.spared:
        said.append(f"Rows like those of {acting.spared:,} dismissals still page nobody.")
    return " ".join(said)
