"""From rows to incidents."""

from typing import Any

import msgspec
import pytest

from models.parts.incident_rule import Rule
from service import timestamps
from service.domain.attribution import Attribution
from service.domain.incident import (
    ROWS_KEPT,
    DismissedPattern,
    Incident,
    KeptRow,
    leads,
    most_severe,
    pattern_of_incident,
    sentence,
)
from service.domain.incident_fold import (
    SOURCES,
    Block,
    Conditions,
    Fold,
    IncidentChange,
)

RULE = Rule(k=3, m=10, alone=4.0, seconds=300.0)
HOUR = 3600.0


def conditions(now: float = 0.0, **more: Any) -> Conditions:
    """Return the conditions of a detector whose rule is three of ten."""
    return msgspec.structs.replace(Conditions(RULE, now, 0.01, version=2, generation=5), **more)


def kept_row(event: str, at: float, severity: float, value: float = 9.0) -> KeptRow:
    """Return a kept row in which feature `speed` leads."""
    leading = (Attribution("speed", 8.0, value, 3.0),)
    return KeptRow(event, at, severity, 0.01**severity, 40.0, b"", leading)


def block(
    start: float, every: float, verdicts: str, source: str = "", severity: float = 1.5
) -> Block:
    """Return rows `every` seconds apart from `start`: `x` is an alarm, `.` is not."""
    places = tuple(i for i, verdict in enumerate(verdicts) if verdict == "x")
    times = tuple(start + i * every for i in places)
    return Block(
        source,
        len(verdicts),
        start + (len(verdicts) - 1) * every,
        places,
        times,
        (severity,) * len(places),
        tuple((i, kept_row(f"{at}", at, severity)) for i, at in zip(places, times, strict=True)),
    )


def run(fold: Fold, *blocks: Block, **more: Any) -> list[IncidentChange]:
    """Fold the blocks; each arrives when its last row was judged."""
    return [c for block in blocks for c in fold.take(block, conditions(block.last, **more))]


def test_three_of_ten_open_one_incident() -> None:
    """The third alarming row of ten opens an incident, which begins at the first of them."""
    fold = Fold()
    assert run(fold, block(0.0, 60.0, "x..x")) == []
    (change,) = run(fold, block(240.0, 60.0, "..x"))
    assert change.kind == "opened"
    incident = change.incident
    assert (incident.start, incident.end, incident.count, incident.state) == (0.0, 360.0, 3, "open")
    assert [row.event for row in change.rows] == ["0.0", "180.0", "360.0"]
    assert (incident.version, incident.generation, incident.features) == (2, 5, ("speed",))


def test_no_incident_ends_before_it_starts() -> None:
    """Start and end are the earliest and the latest time of its rows, in any order."""
    fold = Fold()
    run(fold, block(2 * HOUR, 60.0, "x"))
    (change,) = run(fold, block(HOUR, 60.0, "xx"))
    incident = change.incident
    fields = (change.kind, incident.start, incident.end, incident.count)
    assert fields == ("opened", HOUR, 2 * HOUR, 3)


def test_a_fault_on_top_of_a_state_is_another_incident() -> None:
    """Rows far above an incident's level close it and open the next; other rows continue it."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "x" * 40, severity=2.0))
    assert [change.kind for change in run(fold, block(2400.0, 60.0, "x", severity=2.5))] == [
        "extended"
    ]
    closed, opened = run(fold, block(2460.0, 60.0, "xx", severity=4.0))[-2:]
    assert (closed.kind, closed.incident.count, closed.incident.peak) == ("closed", 41, 2.5)
    assert (opened.incident.start, opened.incident.count, opened.incident.peak) == (2460.0, 2, 4.0)
    assert [row.event for row in opened.rows] == ["2460.0", "2520.0"]
    assert "it follows the incident of 1 Jan 1970 00:00 UTC" in sentence(opened.incident)
    assert "follows" not in sentence(closed.incident)
    packed = msgspec.msgpack.encode(fold)  # rows of an earlier release have no levels
    old = msgspec.msgpack.decode(packed)
    old["sources"][""] = old["sources"][""][:-4]
    assert msgspec.convert(old, Fold).open() == fold.open()


def kinds(changes: list[IncidentChange]) -> list[str]:
    """Return the kinds of the changes, without added rows."""
    return [change.kind for change in changes if change.kind != "extended"]


def test_an_incident_that_goes_on_becomes_a_state() -> None:
    """A lasting incident becomes a state; only rows above its level open another incident."""
    fold = Fold()
    opened, settled = run(fold, block(0.0, 60.0, "x" * 62, severity=2.0))
    assert (opened.kind, settled.kind, settled.reported) == ("opened", "settled", True)
    assert (settled.incident.count, settled.incident.end) == (61, 3600.0)
    assert settled.incident.state == "closed"
    assert "the state goes on at that level" in sentence(settled.incident)
    fold = msgspec.msgpack.decode(msgspec.msgpack.encode(fold), type=Fold)  # a worker follows
    assert run(fold, block(3720.0, 60.0, "x" * 100, severity=2.1)) == []
    (above,) = run(fold, block(9720.0, 60.0, "xxx", severity=2.7))
    assert (above.kind, above.incident.follows) == ("opened", settled.incident.start)
    assert kinds(run(fold, block(9900.0, 60.0, "x" * 9, severity=2.0))) == []
    # Still at the level: the fault above it is over.
    assert kinds(run(fold, block(10440.0, 60.0, "xx", severity=2.0))) == ["closed"]
    (over,) = run(fold, block(10560.0, 60.0, "." * 11))
    assert (over.kind, over.incident, over.reported) == ("closed", settled.incident, False)
    assert fold.sources == {}
    assert kinds(run(fold, block(11220.0, 60.0, "xxx", severity=1.1))) == ["opened"]


def test_a_state_does_not_rise_with_a_fault_that_grows() -> None:
    """A state's level falls with its rows, and never rises above its start: growth is reported."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "x" * 61, severity=2.0))
    assert fold.sources[""].level is not None
    by_hour = []
    for hour, severity in enumerate((1.5, 1.5, 1.6, 1.8, 2.0, 2.1, 2.3, 2.4, 2.7)):
        by_hour.append(
            kinds(run(fold, block(3660.0 + 3840 * hour, 60.0, "x" * 64, severity=severity)))
        )
    assert by_hour == [[]] * 8 + [["opened", "closed", "settled"]]


def test_a_state_with_scattered_heights_opens_few_incidents() -> None:
    """Rows as high as the state's own highest rows open nothing; higher rows do."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "x" * 122, severity=2.0))
    opened = []
    for row in range(122, 485, 33):  # of 33 rows three are twice as high as the others
        high = run(fold, block(60.0 * row, 60.0, "xxx", severity=4.0))
        opened.append("opened" in kinds(high))
        run(fold, block(60.0 * (row + 3), 60.0, "x" * 30, severity=2.0))
    assert not any(opened[-4:]), opened
    assert "opened" in kinds(run(fold, block(40_000.0, 60.0, "xxx", severity=4.5)))


def test_heights_distinguish_a_fault_from_the_state_before_it() -> None:
    """A fault higher than the lasting state is another incident, even if both are as severe."""

    def at_height(start: float, verdicts: str, height: float) -> Block:
        rows = block(start, 60.0, verdicts, severity=1.5)
        return msgspec.structs.replace(rows, heights=(height,) * len(rows.positions))

    for fault, expected in ((2.4, []), (2.5, ["opened"])):
        fold = Fold()
        assert kinds(run(fold, at_height(0.0, "x" * 61, 2.0)))[-1] == "settled"
        assert kinds(run(fold, at_height(3660.0, "xxx", fault))) == expected
    fold = Fold()
    run(fold, at_height(0.0, "x" * 40, 2.0))
    assert kinds(run(fold, at_height(2400.0, "x", 3.1))) == ["closed", "opened"]


@pytest.mark.parametrize(("rows", "every"), [(60, 1.0), (59, 3600.0)])
def test_a_short_incident_is_no_state(rows: int, every: float) -> None:
    """A state needs an hour and sixty alarming rows."""
    assert kinds(run(Fold(), block(0.0, every, "x" * rows, severity=2.0))) == ["opened"]


def test_a_fault_that_grows_is_no_state() -> None:
    """A fault that grows, even slowly, stays one incident."""
    rows = [block(60.0 * i, 60.0, "x", severity=2.0 + i / 60) for i in range(120)]
    assert kinds(run(Fold(), *rows)) == ["opened"]


def test_a_source_that_goes_quiet_ends_its_state() -> None:
    """A state whose source becomes silent is closed."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "x" * 61, severity=2.0))
    (over,) = fold.sweep(conditions(now=1e9))
    assert (over.kind, over.incident.settled, fold.sources) == ("closed", True, {})


def test_one_very_severe_row_is_enough() -> None:
    """A row as severe as the rule's bound opens an incident alone."""
    (change,) = run(Fold(), block(0.0, 1.0, "x", severity=4.0))
    assert (change.kind, change.incident.count, change.incident.peak) == ("opened", 1, 4.0)


def test_the_sentence_describes_the_first_row() -> None:
    """A slightly severer row does not replace the sentence's row, a much severer one does.

    A context has the mean of earlier rows. After a fault these are faulty rows, from whose mean
    healthy rows deviate as much as the fault did.
    """

    def block_with(start: float, *severities: float) -> Block:
        rows = tuple(
            (i, kept_row(f"{start + i}", start + i, severity, value=severity))
            for i, severity in enumerate(severities)
        )
        places, times = tuple(range(len(rows))), tuple(row.at for _, row in rows)
        return Block("", len(rows), times[-1], places, times, severities, rows)

    fold = Fold()
    changes = [
        (incident.peak, incident.p_value, incident.leading[0].value)
        for rows in (
            block_with(0.0, 1.5, 1.6, 1.7),
            block_with(3.0, 1.9, 1.5),
            block_with(5.0, 3.1),
            block_with(6.0, 9.0),
        )
        for incident in [run(fold, rows)[-1].incident]
    ]
    assert changes == [
        (peak, 0.01**peak, spoken)
        for peak, spoken in ((1.7, 1.5), (1.9, 1.5), (3.1, 3.1), (9.0, 3.1))
    ]


def test_a_row_of_which_no_feature_raised_the_score_explains_nothing() -> None:
    """The incident gets the reason of its next row that has one."""
    fold, reasons = Fold(), []
    for row, contribution in enumerate((-0.5, 8.0)):
        single = block(60.0 * row, 60.0, "x", severity=4.0)
        place, kept = single.kept_rows[0]
        leading = (Attribution("speed", contribution, 9.0, 3.0),)
        kept = msgspec.structs.replace(kept, leading=leading)
        changes = run(fold, _replace_block(single, kept_rows=((place, kept),)))
        reasons.append(changes[-1].incident.leading)
    assert reasons == [(), (Attribution("speed", 8.0, 9.0, 3.0),)]


def test_single_alarms_open_nothing() -> None:
    """Single alarms at the asked rate open no incident."""
    assert run(Fold(), *(block(60.0 * i, 60.0, "x...........") for i in range(0, 1200, 12))) == []


def test_sparser_alarms_keep_an_incident_open() -> None:
    """An incident lasts while three of twenty rows alarm; ten rows and 300 s later it closes."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "xxx"))
    (on,) = run(fold, block(180.0, 60.0, "......x"))
    assert (on.kind, on.incident.count, on.incident.end) == ("extended", 4, 540.0)
    (on,) = run(fold, block(600.0, 60.0, "...x....."))  # rows 2, 9 and 13 are three of twenty
    assert (on.kind, on.incident.count, on.incident.end) == ("extended", 5, 780.0)
    (over,) = run(fold, block(1140.0, 60.0, "....."))
    assert (over.kind, over.incident.state, over.incident.end) == ("closed", "closed", 780.0)
    assert fold.open() == []


def test_single_alarms_do_not_keep_an_incident_open() -> None:
    """At two rows a second, of which one in a hundred alarms, an incident closes in 300 s.

    It ends with the last row that belongs to it. Its count and its rows leave later alarms out.
    """
    quiet = "." * 99 + "x"
    for state in (False, True):
        fold, rows = Fold(), "x" * (7201 if state else 20)
        changes = run(fold, block(0.0, 0.5, rows))
        assert kinds(changes) == ["opened", *(["settled"] if state else [])]
        start = len(rows) * 0.5
        changes = run(fold, *(block(start + 50.0 * i, 0.5, quiet) for i in range(5)))
        assert changes == []
        assert kinds(run(fold, block(start + 250.0, 0.5, quiet))) == ["closed"]
        assert (fold.open(), fold.sources[""].level) == ([], None)
    fold = Fold()
    *_, over = run(fold, block(0.0, 0.5, "x" * 20 + "." * 5 + "x" + quiet * 6))
    assert (over.incident.count, over.incident.end, over.rows) == (21, 12.5, ())


def test_alarms_that_gather_belong_together() -> None:
    """A single alarm belongs to the open incident once others follow it, and so does its row."""
    fold = Fold()
    run(fold, block(0.0, 1.0, "xxx" + "." * 20 + "x.x"))
    assert fold.open()[0].count == 3
    (on,) = run(fold, block(26.0, 1.0, ".x"))
    assert (on.incident.count, on.incident.end) == (6, 27.0)
    assert [row.event for row in on.rows] == ["23.0", "25.0", "27.0"]


def test_an_open_incident_of_an_earlier_release_goes_on() -> None:
    """A stored source without its last row counts from its last alarming row."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "xxx"))
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(fold))
    old["sources"][""] = old["sources"][""][:-2]
    fold = msgspec.convert(old, Fold)
    assert run(fold, block(180.0, 60.0, "." * 9)) == []
    assert kinds(run(fold, block(720.0, 60.0, ".."))) == ["closed"]


def test_a_fast_stream_waits_for_the_time() -> None:
    """At a thousand rows a second ten quiet rows do not close: 300 s must pass."""
    fold = Fold()
    run(fold, block(0.0, 0.001, "x" * 5 + "." * 500))
    assert len(fold.open()) == 1
    run(fold, block(299.0, 0.001, "." * 50))
    assert len(fold.open()) == 1
    (over,) = run(fold, block(301.0, 0.001, "." * 50))
    assert over.kind == "closed"


def test_a_slow_stream_has_one_incident() -> None:
    """In a slow stream all anomalies are one incident, which closes after ten rows."""
    fold = Fold()
    changes = run(fold, *(block(HOUR * i, HOUR, "x") for i in range(48)))
    assert [change.kind for change in changes].count("opened") == 1
    assert changes[0].incident.start == 0.0  # the third row opened it
    assert fold.open()[0].count == 48
    changes = run(fold, *(block(HOUR * (48 + i), HOUR, ".") for i in range(12)))
    assert [change.kind for change in changes] == ["closed"]


def test_a_source_that_ends_is_closed_by_the_clock() -> None:
    """A silent source's incident is closed after the usual time of ten rows."""
    fold = Fold()
    run(fold, block(0.0, 60.0, "xxxx"), block(240.0, 60.0, "xx"))
    assert fold.sweep(conditions(300.0 + 599.0)) == []
    (over,) = fold.sweep(conditions(300.0 + 601.0))
    assert (over.kind, over.incident.count) == ("closed", 6)
    assert not fold.sources


@pytest.mark.parametrize("set_back", [False, True], ids=["the client's", "the service's"])
def test_a_clock_that_is_a_day_ahead_keeps_no_incident_open(set_back: bool) -> None:
    """The incident closes after quiet rows, and a later fault is an incident of its own."""
    fold, day = Fold(), 24 * HOUR
    fold.take(block(day, 1.0, "xxxx"), conditions(day if set_back else 0.0))
    later = run(fold, block(HOUR, 10.0, "." * 100), block(7 * HOUR, 10.0, "xxxx"))
    assert [change.kind for change in later] == ["closed", "opened"]
    assert later[1].incident.start == 7 * HOUR
    assert later[1].incident.pages


def test_a_row_dated_a_day_ahead_is_in_no_later_incident() -> None:
    """A row that was dated a day ahead is in no incident of the next day."""
    fold = Fold()
    fold.take(block(24 * HOUR, 1.0, "x", severity=3.0), conditions(0.0))
    run(fold, *(block(60.0 * row, 10.0, ".....x") for row in range(1, 20)))
    (change,) = run(fold, block(2 * HOUR, 10.0, "xxx"))
    assert change.incident.peak == 1.5
    assert "86400.0" not in [row.event for row in change.rows]


def test_sources_have_incidents_of_their_own() -> None:
    """Alarms of two sources are two incidents, and do not count for each other."""
    fold = Fold()
    assert run(fold, block(0.0, 1.0, "xx", "a"), block(0.0, 1.0, "x", "b")) == []
    changes = run(fold, block(2.0, 1.0, "x", "a"), block(1.0, 1.0, "xx", "b"))
    assert [(c.kind, c.incident.source, c.incident.count) for c in changes] == [
        ("opened", "a", 3),
        ("opened", "b", 3),
    ]
    assert len({c.incident.id for c in changes}) == 2


def test_one_request_can_open_two_incidents() -> None:
    """A file of a month in one request has as many incidents as faults."""
    changes = run(Fold(), block(0.0, 60.0, "xxx" + "." * 20 + "xxxx" + "." * 20))
    assert [(c.kind, c.incident.count) for c in changes] == [
        ("opened", 3), ("closed", 3), ("opened", 4), ("closed", 4),
    ]  # fmt: skip
    assert [len(c.rows) for c in changes if c.kind == "opened"] == [3, 4]


def test_unlisted_alarms_are_counted() -> None:
    """Alarming rows beyond the listed ones are counted."""
    many = _replace_block(block(0.0, 0.001, "x" * 20), rows=10_000, unlisted=5_000)
    (change,) = run(Fold(), many)
    assert change.incident.count == 5_020


def _replace_block(original: Block, **more: Any) -> Block:
    return msgspec.structs.replace(original, **more)


def test_old_rows_page_nobody() -> None:
    """Rows that are more than an hour old open an incident without a page."""
    fold = Fold()
    (change,) = fold.take(block(0.0, 60.0, "xxx"), conditions(120.0 + 3601.0))
    assert not change.incident.pages
    (change,) = Fold().take(block(0.0, 60.0, "xxx"), conditions(120.0 + 3599.0))
    assert change.incident.pages


def test_a_muted_detector_pages_nobody() -> None:
    """A muted detector has incidents and pages nobody."""
    (change,) = run(Fold(), block(0.0, 60.0, "xxx"), muted=True)
    assert (change.kind, change.incident.pages) == ("opened", False)


def test_rows_like_dismissed_ones_page_nobody() -> None:
    """Rows with the same leading features in the dismissed range page nobody; others do."""
    (first,) = run(Fold(), block(0.0, 60.0, "xxx"))
    pattern = pattern_of_incident(
        first.incident, [kept_row("a", 0.0, 2.0, 8.0), kept_row("b", 1.0, 2.0, 12.0)]
    )
    assert pattern == DismissedPattern(first.incident.id, {"speed": (8.0, 12.0)})
    (later,) = run(Fold(), block(0.0, 60.0, "xxx"), dismissed_patterns=(pattern,))
    assert (later.incident.pages, later.incident.like) == (False, first.incident.id)
    outside = DismissedPattern("i9", {"speed": (1.0, 2.0)})
    (other,) = run(Fold(), block(0.0, 60.0, "xxx"), dismissed_patterns=(outside,))
    assert (other.incident.pages, other.incident.like) == (True, None)


def test_the_number_of_sources_is_bounded() -> None:
    """With too many sources, the longest silent one is forgotten and its incident closed."""
    fold = Fold()
    run(fold, block(0.0, 1.0, "xxx", "first"))
    changes = [
        c
        for i in range(SOURCES)
        for c in fold.take(block(10.0, 1.0, "x", f"s{i}"), conditions(10.0 + i))
    ]
    assert [(c.kind, c.incident.source) for c in changes] == [("closed", "first")]
    assert len(fold.sources) == SOURCES


def test_quiet_sources_take_no_memory() -> None:
    """Sources without recent alarms take no memory."""
    fold = Fold()
    run(fold, block(0.0, 1.0, "....", "a"), block(0.0, 1.0, "x..", "b"))
    assert set(fold.sources) == {"b"}
    run(fold, block(3.0, 1.0, "........", "b"))
    assert not fold.sources


def test_encoding_between_blocks_changes_no_incident() -> None:
    """Encoding and decoding between any two blocks changes no incident."""
    blocks = [
        block(60.0 * i, 60.0, verdicts) for i, verdicts in enumerate("x.xx.x..........xxxxx" * 3)
    ]
    straight = run(Fold(), *blocks)
    fold, changes = Fold(), []
    for rows in blocks:
        fold = msgspec.msgpack.decode(msgspec.msgpack.encode(fold), type=Fold)
        changes += run(fold, rows)
    assert changes == straight
    assert {c.kind for c in changes} == {"opened", "extended", "closed"}


def test_the_severest_rows_are_kept() -> None:
    """The severest rows of an incident are kept, each event once."""
    rows = [kept_row(f"{i}", float(i), 1.0 + i % 2) for i in range(2 * ROWS_KEPT - 2)]
    severest = most_severe([*rows, rows[3]])
    assert [row.severity for row in severest] == [2.0] * (ROWS_KEPT - 1) + [1.0]
    assert len({row.event for row in severest}) == ROWS_KEPT


def test_the_sentence_says_what_was_seen_and_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what was seen and expected, how rare it is, and since when.

    It names the year of a time that is not in the present year.
    """
    monkeypatch.setattr(timestamps.time, "time", lambda: 1_795_863_000.0)
    open_one = Incident(
        "i1", "", 1_795_861_140.0, 1_795_863_000.0, 3.8, 5e-8, 34, 3, 4,
        (Attribution("speed", 9.0, 2790.4, 2827.1),), explained=3.8,
    )  # fmt: skip
    assert sentence(open_one) == (
        "speed 2790 where 2827 is expected; as rare as 1 in 20 million normals; "
        "since 28 Nov 10:19 UTC, 34 rows"
    )
    closed = msgspec.structs.replace(open_one, closed=1_795_866_000.0, leading=(), count=1)
    assert sentence(closed) == (
        "as rare as 1 in 20 million normals; 28 Nov 10:19 to 28 Nov 10:50 UTC, 1 row"
    )
    silent = msgspec.structs.replace(open_one, explained=3.0, pages=False)
    assert sentence(silent) == (
        "speed 2790 where 2827 is expected; at worst as rare as 1 in 20 million normals; "
        "since 28 Nov 10:19 UTC, 34 rows; nobody was told"
    )
    monkeypatch.setattr(timestamps.time, "time", lambda: 1_800_000_000.0)
    assert "since 28 Nov 2026 10:19 UTC, 34 rows" in sentence(open_one)


def test_at_most_three_features_lead() -> None:
    """At most three features lead, and none that contributes far less than the first."""
    leading = leads([Attribution(str(i), c, 0.0, 1.0) for i, c in enumerate((9, 5, 2, 1.9))])
    assert [lead.feature for lead in leading] == ["0", "1", "2"]
    assert leads([]) == ()


def test_an_unreported_incident_pages_with_its_next_fresh_row() -> None:
    """An incident of old rows, or under a past mute, pages with its next fresh row."""
    for at_opening in (conditions(3 * HOUR), conditions(300.0, muted=True)):
        fold = Fold()
        (opened,) = fold.take(block(0.0, 60.0, "xxx"), at_opening)
        assert (opened.kind, opened.incident.pages) == ("opened", False)
        start = at_opening.now + 60.0
        (paged,) = fold.take(block(start, 60.0, "x"), conditions(start))
        assert (paged.kind, paged.incident.pages, paged.incident.count) == ("paged", True, 4)
    (incident,) = Fold().take(block(0.0, 2 * HOUR, "xx", severity=4.0), conditions(2 * HOUR))
    assert (incident.kind, incident.incident.pages) == ("opened", True)
