"""An incident: rows of one source that alarmed near each other in time, told in one sentence."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from service.domain.attribution import Attribution, Cell, numeric
from service.domain.event import Event

ROWS_KEPT = 100  # of an incident, the worst
LEADING = 3  # features that an incident names
_LEADS = 0.2  # of the largest contribution: a feature with less does not lead
_ENOUGH = 3.0  # severity of a row that explains an incident for good
_CLEARLY = 2.0  # times as severe as an earlier row: a later one explains an incident better
_TODAY = 3600.0  # seconds between the client's clock and the store's
_SLACK = 5.0  # seconds that an API process may take to report what it scored
_ROUNDED = 4  # significant digits of a value in a sentence

Decision = Literal["dismiss", "confirm", "withdraw"]
Verdict = Literal["dismissed", "confirmed"]
VERDICTS: Mapping[str, Verdict | None] = {
    "dismiss": "dismissed", "confirm": "confirmed", "withdraw": None,
}  # fmt: skip


class Witness(msgspec.Struct, frozen=True, array_like=True):
    """One alarming row that is kept: event `event` of the detector.

    `at` is its time in seconds since 1970, `vector` its d little-endian float32, `leading` the
    features that contributed most, as in a scoring answer. `regime` is the nearest, 0 where the
    version knows none.
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
    """One incident, times in seconds since 1970.

    `count` are its alarming rows, `peak` the largest severity and `p_value` that row's. `leading`
    and `regime` are those of the row that speaks for it, of severity `told` (`speaks`). `pages`
    says whether anybody is told of it: not of rows that were old when they came, of rows like those
    of a dismissed incident (`like`, its id), or while the detector is muted. `settled`: it closed
    though its rows went on, for they had become a state at a steady level.
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
    told: float = 0.0
    closed: float | None = None
    pages: bool = True
    like: str | None = None
    settled: bool = False

    @property
    def state(self) -> str:
        """`open` or `closed`."""
        return "open" if self.closed is None else "closed"

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features that lead, the first most."""
        return tuple(one.feature for one in self.leading)


def speaks(row: Witness, told: float) -> bool:
    """Return whether a later row explains an incident better than one of severity `told`.

    Only one with a reason that is clearly severer does, and none where that row was rare enough.
    What began an incident is its cause. Rows right behind a fault may be severer: beside a fault
    among the rows before it, a healthy row deviates too.
    """
    return bool(row.leading) and told < _ENOUGH and row.severity > _CLEARLY * told


class Ruling(msgspec.Struct, frozen=True):
    """What a person decided about an incident; `effect` was the answer.

    `released` rows that had waited in quarantine went on with it.
    """

    verdict: Verdict | None
    why: str
    who: str
    at: float
    effect: str = ""
    released: int = 0


class IncidentRule(msgspec.Struct, frozen=True):
    """The rule in force: so many alarming rows of so many open an incident, or a severe one alone.

    The rates are of false incidents a day: asked for, and held on the calibration normals, with a
    Poisson interval; null where `calibration` is `insufficient`.
    """

    calibration: Literal["exact", "insufficient"]
    alarming_rows: int
    of_rows: int
    severity_alone: float
    asked_per_day: float
    held_per_day: float | None
    held_low: float | None
    held_high: float | None


class Pardon(msgspec.Struct, frozen=True):
    """Rows that page nobody: like those of the dismissed incident `id`.

    `ranges` holds the least and the largest value of each of its leading features, `words` those
    of categories.
    """

    id: str
    ranges: dict[str, tuple[float, float]]
    words: dict[str, tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self.ranges or self.words)

    def covers(self, leading: Sequence[Attribution]) -> bool:
        """Return whether a row with these leading features is like the dismissed ones."""
        return bool(leading) and all(self._covers(one) for one in leading)

    def _covers(self, one: Attribution) -> bool:
        if isinstance(one.value, str):
            return one.value in self.words.get(one.feature, ())
        low, high = self.ranges.get(one.feature, (math.inf, -math.inf))
        value = numeric(one.value)
        return value is not None and low <= value <= high


def pardon(incident: Incident, rows: Sequence[Witness]) -> Pardon:
    """Return the pardon for rows like those of a dismissed incident."""
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}
    for leading in (incident.leading, *(row.leading for row in rows)):
        for one in leads(leading):
            value = numeric(one.value)
            if isinstance(one.value, str):
                words[one.feature] = tuple(dict.fromkeys((*words.get(one.feature, ()), one.value)))
            elif value is not None:
                low, high = ranges.get(one.feature, (value, value))
                ranges[one.feature] = (min(low, value), max(high, value))
    return Pardon(incident.id, ranges, words)


def pardon_of_row(event: Event) -> Pardon:
    """Return the pardon for rows like one event that a person labelled normal.

    Its features lead with the value that they had, and a tenth of the way to the expected one.
    """
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}
    for one in leads(event.attributions):
        value, expected = numeric(one.value), numeric(one.expected)
        if isinstance(one.value, str):
            words[one.feature] = (one.value,)
        elif value is not None and expected is not None:
            reach = 0.1 * abs(value - expected)
            ranges[one.feature] = (value - reach, value + reach)
    return Pardon(f"e{event.id}", ranges, words)


def came(incident: Incident, rows: Sequence[Witness]) -> tuple[float, float]:
    """Return from when until when rows of an incident came here, in unix seconds.

    By its kept `rows`, whose events' ids begin with the store's time: the client's own times may be
    of another day. Where they are of today, the incident's start counts too.
    """
    times = [(int(row.event.partition("-")[0]) / 1000, row.at) for row in rows if row.event]
    since = min((here for here, _ in times), default=math.inf)
    if times and all(abs(here - said) < _TODAY for here, said in times):
        since = min(since, incident.start)
    return since - _SLACK, math.inf if incident.closed is None else incident.closed + _SLACK


def leads(contributions: Sequence[Attribution]) -> tuple[Attribution, ...]:
    """Return the contributions that lead: LEADING at most, none far below the largest.

    >>> found = leads([Attribution("a", 9.0, 7.0, 1.0), Attribution("b", 1.0, 2.0, 1.0)])
    >>> [one.feature for one in found]
    ['a']
    """
    if not contributions:
        return ()
    most = max(one.contribution for one in contributions)
    return tuple(one for one in contributions if one.contribution >= _LEADS * most)[:LEADING]


def sentence(incident: Incident) -> str:
    """Return the incident in one plain sentence.

    >>> sentence(Incident("i1", "", 0.0, 2040.0, 3.7, 5e-8, 34, 1, 1,
    ...          (Attribution("speed", 9.0, 2790.0, 2827.2),)))
    'speed 2790 where 2827 is expected; as rare as 1 in 20 million normals; since 1 Jan 00:00 UTC, 34 rows'
    """  # noqa: E501 - one sentence
    told = [
        f"{_named(one.feature)} {number(one.value)} where {number(one.expected)} is expected"
        for one in incident.leading[:1]
    ]
    told.append(rarity(incident.p_value))
    rows = "1 row" if incident.count == 1 else f"{incident.count:,} rows"
    if incident.closed is None:
        told.append(f"since {_minute(incident.start)} UTC, {rows}")
    else:
        told.append(f"{_minute(incident.start)} to {_minute(incident.end)} UTC, {rows}")
    if incident.settled:
        told.append("it went on at that level, and only what rises above it is another incident")
    if incident.like is not None:
        told.append("like rows that were dismissed")
    return "; ".join(told)


def _named(feature: str) -> str:
    """Return a feature as a sentence names it: a column without a name is a bare number.

    >>> _named("speed"), _named("1")
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


def number(value: Cell, digits: int = _ROUNDED) -> str:
    """Return a number as a person writes it, a category by its name, or `blank`.

    >>> number(2827.2), number(0.00123456), number(None), number("idle")
    ('2827', '0.001235', 'blank', 'idle')
    """
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "blank"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if rounded.is_integer() and abs(rounded) < 1e15 else f"{rounded:g}"


def _minute(at: float) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %H:%M}"
