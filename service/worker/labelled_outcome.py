"""The part of a version's record about rows that people labelled normal."""

from msgspec import UNSET, UnsetType

from models.parts.lineage import Evidence


def labelled_outcome(evidence: Evidence) -> str | UnsetType:
    """Return the record's part about learned rows with a label `normal`, UNSET without such rows.

    The text also says which share of the synthetic anomalies the candidate finds, and which share
    the champion finds.
    """
    vouched, synthetic = evidence.vouched, evidence.synthetic
    if vouched is None:
        return UNSET
    text = f"of {vouched.n} rows labelled normal, {vouched.still} still alarm"
    if synthetic is not None:
        now, before = (100 * figures.found for figures in (synthetic.candidate, synthetic.champion))
        text += f"; {now:.1f} % of synthetic anomalies are found, {before:.1f} % were found before"
    return text
