"""Which labels of people still have an effect after another version became champion."""

from collections.abc import Container, Sequence

from msgspec import Struct

from service.counted import counted
from service.domain.event import Label


class StandingLabels(Struct, frozen=True):
    """How many labels still have an effect after a move of the champion.

    The champion did not learn `unlearned` of the rows labelled normal. `spared` counts the
    dismissed incidents and the events labelled normal: rows like theirs page nobody.
    """

    normal: int
    anomaly: int
    unlearned: int
    spared: int


def standing_labels(
    labels: Sequence[Label], unlearned_batches: Container[str], spared: int
) -> StandingLabels:
    """Return how many labels have an effect if the champion did not learn `unlearned_batches`."""
    normal = [label for label in labels if label.label == "normal"]
    unlearned = sum(
        label.batch is not None and label.batch in unlearned_batches for label in normal
    )
    return StandingLabels(len(normal), len(labels) - len(normal), unlearned, spared)


def effect_of_move(number: int, forgotten: int, labels: StandingLabels) -> str:
    """Return sentences on the move to version `number`, which did not learn `forgotten` vectors.

    >>> effect_of_move(1, 0, StandingLabels(normal=0, anomaly=0, unlearned=0, spared=2))
    'Version 1 serves. Rows like those of 2 dismissals still page nobody.'
    >>> effect_of_move(2, 0, StandingLabels(0, 0, 0, 0))
    'Version 2 serves.'
    """
    sentences = [f"Version {number} serves."]
    if forgotten:
        sentences.append(
            f"It does not know what was learned since: {counted(forgotten, 'vector')}."
        )
    if labels.normal or labels.anomaly:
        sentences.append(
            f"The gate still checks {counted(labels.normal, 'normal label')} and "
            f"{counted(labels.anomaly, 'anomaly label')}."
        )
    if labels.unlearned:
        sentences.append(
            f"This version did not learn {counted(labels.unlearned, 'row')} labelled normal, which "
            "may alarm again."
        )
    if labels.spared:
        dismissals = counted(labels.spared, "dismissal")
        sentences.append(f"Rows like those of {dismissals} still page nobody.")
    return " ".join(sentences)
