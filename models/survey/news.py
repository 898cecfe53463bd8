"""How much of each regime was new when it came; the gate uses it to detect drift in small steps."""

import msgspec

from models.arrays import Array
from models.parts.lineage import KnownRegime
from models.version.version import Version

RARE = 0.01  # a vector is rare up to this p-value, whatever the configured threshold
FEWEST = 20  # the fewest vectors that give a share
LOOKED_AT = 4_000  # the most new vectors used


def with_news(version: Version, parent: Version | None, new: Array) -> tuple[KnownRegime, ...]:
    """Return the regimes of `version` with `novel`: the share of each that was rare to `parent`.

    `new` (n, d) are the normals, in the client's units, that `version` learned on top of `parent`.
    The largest share of all experiences is kept.
    """
    regimes = version.lineage.regimes
    if parent is None or not regimes:
        return regimes
    new = new[:LOOKED_AT]
    rare, of = parent.judge(new).p_values <= RARE, version.nearest_regime(new)
    before = {one.number: one.novel for one in parent.lineage.regimes}
    found = []
    for one in regimes:
        mine, novel = of == one.number, before.get(one.number)
        if mine.sum() >= FEWEST:
            novel = max(novel or 0.0, float(rare[mine].mean()))
        found.append(msgspec.structs.replace(one, novel=novel))
    return tuple(found)
