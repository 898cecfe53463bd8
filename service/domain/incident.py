"""An incident: rows of one source that alarm near each other in time; and its sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from models.parts.incident_calibration import FEWEST
from models.parts.incident_rule import DAY
from service.counted import counted
from service.domain.attribution import Attribution, Cell, numeric
from service.domain.event import Event
from service.timestamps import day_and_time

ROWS_KEPT = 100  # the most severe rows of an incident
LEADING = 3  # features that an incident names
_LEADS = 0.2  # share of the largest contribution that a leading feature needs
_ENOUGH = 3.0  # once the explaining row has this severity, no later row replaces it
_CLEARLY = 2.0  # a later row explains better only if it is this many times as severe
_AGREEING = 3600.0  # seconds by which the client's times may differ from the store's clock
FOLLOWS = "it follows the incident of {}, which grew, changed or ended"
_SLACK = 5.0  # seconds that an API process may take to report scored rows
_ROUNDED = 4  # significant digits of a value in a sentence
_MOST = 9  # significant digits that tell any two numbers of float32 apart

Decision = Literal["dismiss", "confirm", "withdraw"]
Verdict = Literal["dismissed", "confirmed"]
VERDICTS: Mapping[str, Verdict | None] = {
    "dismiss": "dismissed", "confirm": "confirmed", "withdraw": None,
}  # fmt: skip


class KeptRow(msgspec.Struct, frozen=True, array_like=True):
    """One alarming row that is kept; `event` is the id of its event.

    `at` is its time in seconds since 1970. `vector` holds its d values as little-endian float32.
    `leading` are the features that contributed most, as in a scoring answer. `regime` is the
    nearest regime, or 0 if the version knows no regimes.
    """

    event: str
    at: float
    severity: float
    p_value: float
    score: float
    vector: bytes
    leading: tuple[Attribution, ...] = ()
    regime: int = 0
    client_id: str | None = None


class Incident(msgspec.Struct, frozen=True, omit_defaults=True):
    """One incident; times are in seconds since 1970.

    `count` is the number of its alarming rows. `peak` is the largest severity, and `p_value` is
    that of the row with the largest severity. `leading` and `regime` are those of the row that
    explains the incident (see `explains_better`). `explained` is the severity of that row.

    `pages` says whether people are notified. They are not if the rows were old when they arrived,
    if the detector is muted, or if the rows resemble those of a dismissed incident. In the last
    case `like` is the id of that incident. `settled` means that the incident closed although rows
    went on alarming: they had become a lasting state. `follows` is the start of the incident that
    still lasted when this one opened: with a context, the end of a fault alarms too.
    """

    id: str
    source: str
    start: float
    end: float
    peak: float
    p_value: float
    count: int
    version: int
    generation: int
    leading: tuple[Attribution, ...] = ()
    regime: int = 0
    explained: float = msgspec.field(default=0.0, name="told")
    closed: float | None = None
    pages: bool = True
    like: str | None = None
    settled: bool = False
    follows: float | None = None

    @property
    def state(self) -> str:
        """`open` or `closed`."""
        return "open" if self.closed is None else "closed"

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the leading features, the largest contribution first."""
        return tuple(lead.feature for lead in self.leading)


def most_severe(rows: Sequence[KeptRow]) -> list[KeptRow]:
    """Return at most ROWS_KEPT rows, the most severe first, each event once."""
    distinct: Mapping[str, KeptRow] = {row.event: row for row in rows}
    return sorted(distinct.values(), key=lambda row: (-row.severity, row.at))[:ROWS_KEPT]


def explains_better(row: KeptRow, explained: float) -> bool:
    """Return whether a later `row` explains an incident better than a row of severity `explained`.

    It does if a feature raised its score and it is clearly more severe, unless the earlier row is
    severe enough already. The first rows of an incident show its cause best. With a context, a
    healthy row soon after a fault may be more severe, because the fault is among its earlier rows.
    """
    has_reason = bool(leads(row.leading))
    return has_reason and explained < _ENOUGH and row.severity > _CLEARLY * explained


class IncidentDecision(msgspec.Struct, frozen=True):
    """The decision of a person about an incident.

    `effect` is the sentence that the person was shown. `released` is the number of rows that the
    decision released from quarantine.
    """

    verdict: Verdict | None
    why: str
    who: str
    at: float
    effect: str = ""
    released: int = 0


class IncidentRule(msgspec.Struct, frozen=True):
    """The rule that opens incidents.

    An incident opens if `alarming_rows` of the latest `of_rows` rows alarm, or if one row has a
    severity of at least `severity_alone`. The rates count false incidents a day: the configured
    rate, and the rate on the calibration normals with its Poisson interval. The latter are null if
    `calibration` is `insufficient`. `counted_rows` is the number of normals on which trainings
    counted false incidents so far, and `needed_rows` is how many the configured rate needs at the
    present traffic; null while that is unknown.
    """

    calibration: Literal["exact", "insufficient"]
    alarming_rows: int
    of_rows: int
    severity_alone: float
    asked_per_day: float
    held_per_day: float | None
    held_low: float | None
    held_high: float | None
    counted_rows: int = 0
    needed_rows: int | None = None

    @property
    def counted_seconds(self) -> float:
        """How long normals must last, in seconds, before a rate is stated."""
        return FEWEST * DAY / self.asked_per_day


class DismissedPattern(msgspec.Struct, frozen=True):
    """The leading features of a dismissed incident or of an event labelled normal.

    Rows that the pattern covers page nobody. `id` is the id of the incident, or `e` and the id of
    the event. `ranges` holds the least and the largest value of each leading feature. `words` holds
    the words of each leading category. `sender` is the id of the API key that dismissed the rows.
    """

    id: str
    ranges: dict[str, tuple[float, float]]
    words: dict[str, tuple[str, ...]] = {}
    sender: str = ""

    def __bool__(self) -> bool:
        return bool(self.ranges or self.words)

    def covers(self, leading: Sequence[Attribution]) -> bool:
        """Return whether a row with these leading features is similar to the dismissed rows."""
        return bool(leading) and all(self._covers(lead) for lead in leading)

    def _covers(self, lead: Attribution) -> bool:
        if isinstance(lead.value, str):
            return lead.value in self.words.get(lead.feature, ())
        low, high = self.ranges.get(lead.feature, (math.inf, -math.inf))
        value = numeric(lead.value)
        return value is not None and low <= value <= high


def pattern_of_incident(
    incident: Incident, rows: Sequence[KeptRow], sender: str = ""
) -> DismissedPattern:
    """Return the pattern of the rows of an incident that `sender` dismissed."""
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}
    for leading in (incident.leading, *(row.leading for row in rows)):
        for lead in leads(leading):
            value = numeric(lead.value)
            if isinstance(lead.value, str):
                words[lead.feature] = tuple(
                    dict.fromkeys((*words.get(lead.feature, ()), lead.value))
                )
            elif value is not None:
                low, high = ranges.get(lead.feature, (value, value))
                ranges[lead.feature] = (min(low, value), max(high, value))
    return DismissedPattern(incident.id, ranges, words, sender)


def pattern_of_event(event: Event, sender: str = "") -> DismissedPattern:
    """Return the pattern of an event that `sender` labelled normal.

    The range of a leading feature is its value, plus and minus a tenth of its deviation from the
    expected value.
    """
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}
    for lead in leads(event.attributions):
        value, expected = numeric(lead.value), numeric(lead.expected)
        if isinstance(lead.value, str):
            words[lead.feature] = (lead.value,)
        elif value is not None and expected is not None:
            reach = 0.1 * abs(value - expected)
            ranges[lead.feature] = (value - reach, value + reach)
    return DismissedPattern(event_pattern(event.id), ranges, words, sender)


def event_pattern(event: str) -> str:
    """Return the id of the pattern of this event."""
    return f"e{event}"


def arrival(incident: Incident, rows: Sequence[KeptRow]) -> tuple[float, float]:
    """Return the earliest and the latest time at which the incident's rows can have arrived.

    The times are in seconds since 1970. They come from the event ids of the kept `rows`, which
    begin with the store's time. The client's timestamps may be those of another day. If they agree
    with the store's clock, the start of the incident counts too.
    """
    times = [(int(row.event.partition("-")[0]) / 1000, row.at) for row in rows if row.event]
    since = min((arrived for arrived, _ in times), default=math.inf)
    if times and all(abs(arrived - stated) < _AGREEING for arrived, stated in times):
        since = min(since, incident.start)
    return since - _SLACK, math.inf if incident.closed is None else incident.closed + _SLACK


def leads(contributions: Sequence[Attribution]) -> tuple[Attribution, ...]:
    """Return the leading contributions: at most LEADING, each at least a fifth of the largest.

    The result is empty if no feature by itself raised the score, only their combination. A feature
    whose value is the expected one is left out: "state Run, expected Run" would explain nothing.

    >>> leading = leads([Attribution("a", 9.0, 7.0, 1.0), Attribution("b", 1.0, 2.0, 1.0)])
    >>> [lead.feature for lead in leading]
    ['a']
    >>> leads([Attribution("state", 9.0, "Run", "Run"), Attribution("b", 1.0, 2.0, 1.0)])
    ()
    """
    if not contributions:
        return ()
    most = max(contribution.contribution for contribution in contributions)
    return tuple(
        contribution
        for contribution in contributions
        if contribution.contribution >= _LEADS * most
        and contribution.value != contribution.expected
    )[:LEADING]


def sentence(incident: Incident) -> str:
    """Return one sentence that describes the incident.

    >>> sentence(Incident("i1", "", 0.0, 2040.0, 3.7, 5e-8, 34, 1, 1,
    ...          (Attribution("speed", 9.0, 2790.0, 2827.2),), explained=3.7))
    'speed 2790 where 2827 is expected; as rare as 1 in 20 million normals; since 1 Jan 1970 00:00 UTC, 34 rows'
    """  # noqa: E501 - one sentence
    parts = [
        f"{_in_words(lead.feature)} {number(lead.value, beside=lead.expected)} where "
        f"{number(lead.expected, beside=lead.value)} is expected"
        for lead in incident.leading[:1]
    ]
    # The values are those of the row that explains the incident. A later row may be worse.
    worse = "at worst " if incident.leading and incident.peak > incident.explained else ""
    parts.append(worse + rarity(incident.p_value))
    rows = counted(incident.count, "row")
    untold = not incident.pages and incident.like is None
    start, end = day_and_time(incident.start), day_and_time(incident.end)
    times = start if start == end else f"{start} to {end}"
    times = f"since {start}" if incident.closed is None else times
    parts.append(f"{times} UTC, {rows}")
    if incident.settled:
        parts.append(
            "the state goes on at that level; only rows above that level open another incident"
        )
    if incident.follows is not None:
        parts.append(FOLLOWS.format(f"{day_and_time(incident.follows)} UTC"))
    if incident.like is not None:
        parts.append("like rows that were dismissed")
    elif untold:
        parts.append("nobody was told")
    return "; ".join(parts)


def _in_words(feature: str) -> str:
    """Return the words for a feature in a sentence. A column without a name has a number instead.

    >>> _in_words("speed"), _in_words("1")
    ('speed', 'column 1:')
    """
    return f"column {feature}:" if feature.isdigit() else feature


def rarity(p_value: float) -> str:
    """Return a p-value in words.

    >>> rarity(0.004), rarity(5e-8)
    ('as rare as 1 in 250 normals', 'as rare as 1 in 20 million normals')
    """
    one_in = 1.0 / max(p_value, 1e-300)
    if one_in > 1e12:
        return "rarer than 1 in a trillion normals"
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if one_in >= size:
            return f"as rare as 1 in {number(one_in / size, 2)} {name} normals"
    return f"as rare as 1 in {float(number(one_in, 2)):,.0f} normals"


def number(
    value: Cell,
    digits: int = _ROUNDED,
    *,
    beside: Cell = None,
    blank: str = "blank",
    comma: Literal["", ","] = "",
) -> str:
    """Return a number rounded to so many significant digits, a word unchanged, `blank` for None.

    It has more digits if it would look the same as another number `beside` it. `comma` separates
    the thousands.

    >>> number(2827.2), number(0.00123456), number(None), number("idle")
    ('2827', '0.001235', 'blank', 'idle')
    >>> number(2671.34, 5, comma=","), number(2702.0, 5, comma=",")
    ('2,671.3', '2,702')
    >>> number(87.8711, beside=87.8713), number(87.8713, beside=87.8711)
    ('87.8711', '87.8713')
    """
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return blank
    if isinstance(beside, float) and beside != value:
        while digits < _MOST and f"{value:.{digits}g}" == f"{beside:.{digits}g}":
            digits += 1
    rounded = float(f"{value:.{digits}g}")
    whole = rounded.is_integer() and abs(rounded) < 1e15
    return f"{rounded:{comma}.0f}" if whole else f"{rounded:{comma}.{max(digits, 6)}g}"
