"""The result of comparing this process with a detector in the store or on disk."""

from dataclasses import dataclass
from typing import Literal

from service.domain.champion import Champion
from service.domain.detector import Detector

Change = Literal["none", "swapped", "refused", "unloaded", "deleted", "regressed"]
LoadedFrom = Literal["store", "disk", "memory"]


@dataclass(frozen=True, slots=True)
class SwapOutcome:
    """What changed for the detector `name`. The memory of the process is already changed.

    `none`: the right champion already serves. `swapped`: `champion` serves from now on. It was
    read from `loaded_from` in `seconds`, which is None if its version served already. `refused`:
    the champion in the store cannot be loaded, so the earlier champion still serves. `unloaded`:
    the last version was revoked. `deleted`: the detector was deleted. `regressed`: the store holds
    an older state than this process, or lost the detector. It is reported once, and the earlier
    champion still serves.

    `detector` is the state in the store, or None if there is none or the store was not asked. `why`
    explains `refused` and `regressed`. `evicted` names detectors that were unloaded to make room.
    """

    name: str
    change: Change = "none"
    detector: Detector | None = None
    champion: Champion | None = None
    loaded_from: LoadedFrom = "memory"
    seconds: float | None = None
    why: str = ""
    evicted: tuple[str, ...] = ()
