"""What admission decided about the rows of a batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Why rows wait for a person.
APART = "anomalous under the champion, and apart from the rest of the batch"
NOVEL = "anomalous under the champion, and nothing novel is learned without a person"
NOVEL_OR_APART = f"{NOVEL}; some rows stand apart from the rest of the batch"
ONE_SENDER = "a new regime, and too much of what is buffered would be from one sender"
ALARMED = (
    "alarmed when they were scored, or while an incident is open: dismiss the incident, or send "
    "the rows with `vouch`"
)
# Rows that wait for a decision about an incident, and go on once it is dismissed.
UNDECIDED = frozenset({NOVEL, NOVEL_OR_APART, ALARMED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What admission, with `version`, says of the n rows of a batch.

    `kept` and `held` mark, (n,), what goes to the buffer and what waits for a person; the rest is
    known so well that it is counted and not stored. `novel` of the kept rows are of a new regime.
    `shares` of known, novel and suspicious rows sum to 1.
    """

    version: int
    kept: NDArray[np.bool_]
    held: NDArray[np.bool_]
    novel: int
    reason: str
    shares: dict[str, float]
