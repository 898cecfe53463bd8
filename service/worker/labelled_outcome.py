"""What the record of a retraining says of rows that people labelled normal."""

from msgspec import UNSET, UnsetType

from models.parts.lineage import Evidence


def labelled_outcome(evidence: Evidence) -> str | UnsetType:
    """Return what the record says of the rows labelled normal that were learned, if any were.

    And what they cost: anomalies made up from the champion's normals that are no longer found.
    """
    vouched, made_up = evidence.vouched, evidence.synthetic
    if vouched is None:
        return UNSET
    told = f"of {vouched.n} labelled normal, {vouched.still} still alarm"
    if made_up is not None:
        now, before = (100 * one.found for one in (made_up.candidate, made_up.champion))
        told += f"; of synthetic anomalies {now:.1f} % are found, {before:.1f} % before"
    return told
