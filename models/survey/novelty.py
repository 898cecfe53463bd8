"""How much of each regime was new when it came; the gate uses it to detect drift in small steps."""

import msgspec
import numpy as np

from models.arrays import Array
from models.parts.lineage import UNUSUAL, KnownRegime
from models.version.version import Version

FEWEST = 20  # the fewest vectors that give a share
LOOKED_AT = 4_000  # the most new vectors used


def with_novelty(version: Version, parent: Version | None, new: Array) -> tuple[KnownRegime, ...]:
    """Return the regimes of `version` with `novel`: how much of each was new when it came.

    `new` (n, d) are the normals, in the client's units, that `version` learned on top of `parent`.
    A vector counts 1 if it is unusual to `parent`. A usual vector that `parent` assigns to another
    regime counts as much as the `novel` of that regime, any other vector 0. `novel` is the mean
    over the regime's vectors, and the largest of all experiences is kept.
    """
    regimes = version.lineage.regimes
    if parent is None or not regimes:
        return regimes
    new = new[:LOOKED_AT]
    numbers, before = version.nearest_regime(new), parent.nearest_regime(new)
    novel = {regime.number: regime.novel for regime in parent.lineage.regimes}
    share = np.array([novel.get(number) or 0.0 for number in before.tolist()])
    share[before == numbers] = 0.0
    share[parent.judge(new).p_values <= UNUSUAL] = 1.0
    for number in {regime.number for regime in regimes}:
        rows = numbers == number
        if rows.sum() >= FEWEST:
            novel[number] = max(novel.get(number) or 0.0, float(share[rows].mean()))
    return tuple(
        msgspec.structs.replace(regime, novel=novel.get(regime.number)) for regime in regimes
    )
