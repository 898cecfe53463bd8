"""The part of a version's record about rows that people labelled normal."""

from msgspec import UNSET, UnsetType

from models.parts.lineage import Evidence


def labelled_outcome(evidence: Evidence) -> str | UnsetType:
    """Return the record's part about learned rows with a label `normal`, None if there are none.

    It also says how many synthetic anomalies, made from the champion's normals, are found now and
    before.
    """
    vouched, made_up = evidence.vouched, evidence.synthetic
    if vouched is None:
        return UNSET
    text = f"of {vouched.n} labelled normal, {vouched.still} still alarm"
    if made_up is not None:
        now, before = (100 * one.found for one in (made_up.candidate, made_up.champion))
        text += f"; of synthetic anomalies {now:.1f} % are found, {before:.1f} % before"
    return text
