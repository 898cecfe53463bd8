"""The reasons why rows wait in quarantine."""

from service.domain.admission import ALARMED, UNDECIDED


def test_the_reason_of_alarmed_rows_fits_both_verdicts() -> None:
    """The reason says what to do with normal rows and with a fault; its old text is still known.

    The rows may be those of an incident that a person has confirmed.
    """
    assert "if they are normal, dismiss the incident, or send them with `vouch`" in ALARMED
    assert "if it is a fault, discard them" in ALARMED
    old = (
        "alarmed when they were scored, or while an incident is open: dismiss the incident, or "
        "send the rows with `vouch`"
    )
    assert {old, ALARMED} <= UNDECIDED
