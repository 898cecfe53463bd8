"""The shadow stage: how champion and candidate judge the same live traffic."""

from models.parts.lineage import Count, Part, Rate


class JudgedRow(Part, frozen=True, kw_only=True):
    """One version's judgement of one vector."""

    score: float
    p_value: float
    is_anomaly: bool


class DisputedRow(Part, frozen=True, kw_only=True):
    """A vector on which one of the two versions alarms and the other does not."""

    vector: tuple[float | None, ...]
    candidate: JudgedRow
    champion: JudgedRow


class ShadowResult(Part, frozen=True, kw_only=True):
    """The shares of `n` live vectors on which each version alarms; `asked` vectors were wanted.

    `disagree` counts the vectors on which exactly one version alarms; `rows` are some of them.
    """

    asked: Count
    n: Count
    candidate: Rate | None = None
    champion: Rate | None = None
    disagree: Count | None = None
    rows: tuple[DisputedRow, ...] | None = None
