"""What champion and candidate say of the same live traffic, before the candidate may serve."""

from models.parts.lineage import Count, Part, Rate


class JudgedRow(Part, frozen=True, kw_only=True):
    """What one version says of one vector."""

    score: float
    p_value: float
    is_anomaly: bool


class DisputedRow(Part, frozen=True, kw_only=True):
    """A vector on which one of the two versions alarms and the other does not."""

    vector: tuple[float | None, ...]
    candidate: JudgedRow
    champion: JudgedRow


class ShadowResult(Part, frozen=True, kw_only=True):
    """Of `n` live vectors, `asked` for: the shares that either version alarms on.

    `disagree` counts those on which one alone does, `rows` are some of these.
    """

    asked: Count
    n: Count
    candidate: Rate | None = None
    champion: Rate | None = None
    disagree: Count | None = None
    rows: tuple[DisputedRow, ...] | None = None
