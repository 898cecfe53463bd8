"""What one look at a detector, in the store or on the disk, changed in this process."""

from dataclasses import dataclass
from typing import Literal

from service.domain.champion import Champion
from service.domain.detector import Detector

Change = Literal["none", "swapped", "refused", "unloaded", "deleted", "regressed"]
Source = Literal["store", "disk", "memory"]


@dataclass(frozen=True, slots=True)
class SwapOutcome:
    """What happened to the detector `name`; memory is changed already when this is returned.

    `none`: what serves is what should. `swapped`: `champion` serves from now on; it came from
    `source`, and that took `seconds`, None where its version served already. `refused`: the store's
    champion cannot be loaded, and what served before serves on. `unloaded`: the last version was
    revoked. `deleted`: the detector is gone. `regressed`: the store holds an older state than this
    process, or lost the detector, which is found out once; what serves goes on.

    `detector` is what the store says, None where there is none or it was not asked. `why` explains
    `refused` and `regressed`. `evicted` names the detectors that were unloaded to make room.
    """

    name: str
    change: Change = "none"
    detector: Detector | None = None
    champion: Champion | None = None
    source: Source = "memory"
    seconds: float | None = None
    why: str = ""
    evicted: tuple[str, ...] = ()
