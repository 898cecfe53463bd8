"""What admission decided about the rows of a batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The reasons why rows wait in quarantine. The store keeps these texts. Rows whose reason is in
# UNDECIDED are found by the text. So if a text changes, its old form stays in UNDECIDED: otherwise
# rows that are already in quarantine would no longer be found.
DISSIMILAR = "anomalous under the champion, and not similar to the rest of the batch"
NOVEL = "anomalous under the champion, and nothing novel is learned without a person"
NOVEL_OR_DISSIMILAR = f"{NOVEL}; some rows stand apart from the rest of the batch"
ONE_SENDER = "the novel rows of this batch would exceed the share of the buffer for one sender"
ALARMED = (
    "alarmed when they were scored, or while an incident is open: if they are normal, dismiss the "
    "incident, or send them with `vouch`; if it is a fault, discard them"
)
_ALARMED_BEFORE = (
    "alarmed when they were scored, or while an incident is open: dismiss the incident, or send "
    "the rows with `vouch`"
)
# Rows with these reasons wait for a decision about an incident; dismissing it releases them.
UNDECIDED = frozenset({NOVEL, NOVEL_OR_DISSIMILAR, ALARMED, _ALARMED_BEFORE})


@dataclass(frozen=True, slots=True)
class AdmissionVerdict:
    """The decision of admission, made with `version`, about the n rows of a batch.

    `kept` (n,) marks the rows that go to the buffer, `held` (n,) those that wait for a person. All
    other rows are known so well that they are counted and not stored. `novel` counts the kept rows
    of a new regime. `shares` of known, novel and suspicious rows sum to 1.
    """

    version: int
    kept: NDArray[np.bool_]
    held: NDArray[np.bool_]
    novel: int
    reason: str
    shares: dict[str, float]
