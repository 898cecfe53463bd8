"""How much of each regime was new when it came; the gate uses it to detect drift in small steps."""

import msgspec

from models.arrays import Array
from models.parts.lineage import KnownRegime
from models.version.version import Version

RARE = 0.01  # a vector is rare up to this p-value, whatever the configured threshold
FEWEST = 20  # the fewest vectors that give a share
LOOKED_AT = 4_000  # the most new vectors used


def with_novelty(version: Version, parent: Version | None, new: Array) -> tuple[KnownRegime, ...]:
    """Return the regimes of `version` with `novel`: the share of each that was rare to `parent`.

    `new` (n, d) are the normals, in the client's units, that `version` learned on top of `parent`.
    The largest share of all experiences is kept.
    """
    regimes = version.lineage.regimes
    if parent is None or not regimes:
        return regimes
    new = new[:LOOKED_AT]
    rare, numbers = parent.judge(new).p_values <= RARE, version.nearest_regime(new)
    before = {regime.number: regime.novel for regime in parent.lineage.regimes}
    updated = []
    for regime in regimes:
        mine, novel = numbers == regime.number, before.get(regime.number)
        if mine.sum() >= FEWEST:
            novel = max(novel or 0.0, float(rare[mine].mean()))
        updated.append(msgspec.structs.replace(regime, novel=novel))
    return tuple(updated)
