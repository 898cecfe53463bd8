"""How much of each regime was news when it came: what the gate tells a slow walk from."""

import msgspec

from models.arrays import Array
from models.parts.lineage import KnownRegime
from models.version.version import Version

RARE = 0.01  # p-value from which on a vector is rare, whatever threshold is asked for
FEWEST = 20  # vectors; a share of fewer says nothing
LOOKED_AT = 4_000  # new vectors


def with_news(version: Version, parent: Version | None, new: Array) -> tuple[KnownRegime, ...]:
    """Return the regimes of `version` with `novel`: which share of each was news to `parent`.

    `new` (n, d) are the normals, in the client's units, that the version learned on top of it; the
    largest share of all experiences is kept.
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
