"""Collects the rows scored with one champion and makes reports of them. Counts are exact."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.incident_rule import heights
from models.version.judgement import Judgement
from service.domain import history
from service.domain.attribution import Attribution
from service.domain.champion import Champion
from service.domain.event import Event, digest
from service.domain.history import Bucket
from service.domain.incident import KeptRow
from service.domain.incident_fold import Block
from service.domain.row_tags import NO_TAGS, RowTags
from service.domain.traffic import BucketCounts, Report, place_of
from service.domain.words import SEEN

EVENTS = 50  # most events of one detector in one report: the most severe of each source and run
RUN = 16  # a run of alarming rows ends where more rows of its source than these do not alarm
ATTRIBUTED = 5  # contributions in each event
LISTED = 4096  # most alarming rows of one source that a report lists; further ones are only counted
SOURCES = 256  # most sources in one report; those with alarms come first
# Most alarming rows of one report that are recognised if they are sent as normal later.
DIGESTS = 1000


class _Chunk(NamedTuple):
    """One answer: its time, the judgement and tags of its rows, and vectors.

    `kept` are the positions of the rows whose vectors are in `X`, None if `X` has all of them.
    """

    X: Array
    judgement: Judgement
    at: float
    tags: RowTags
    kept: NDArray[np.intp] | None


@dataclass(slots=True)
class Collected:
    """The rows scored with one champion since its last report."""

    chunks: list[_Chunk] = field(default_factory=list)

    def add(self, X: Array, judgement: Judgement, at: float, tags: RowTags = NO_TAGS) -> None:
        """Add an answer. Of a large one, only the most severe alarming rows are copied."""
        kept = None
        if len(X) > EVENTS:
            rows = np.flatnonzero(judgement.is_anomaly)
            kept = rows[_most_severe(judgement.severities[rows], rows, tags.sources)]
            X = X[kept]
        self.chunks.append(_Chunk(X, judgement, at, tags, kept))

    def alarmed(self) -> list[str]:
        """Return the digests of the alarming vectors that were kept."""
        rows = _alarming_rows(
            self.chunks, np.concatenate([chunk.judgement.is_anomaly for chunk in self.chunks])
        )
        return [digest(row.x) for row in rows]


class ReportWithEvents(NamedTuple):
    """A report, the events of its listed rows in order, and the digests of alarming vectors."""

    report: Report
    events: list[Event]
    alarmed: list[str]


def make_report(
    champion: Champion, collected: Collected, regimes: Sequence[int], now: float
) -> ReportWithEvents:
    """Return the report of the collected rows.

    `regimes` has counts of the rows that were placed: anomalies first, then each regime.
    """
    chunks = collected.chunks
    severities = np.concatenate([chunk.judgement.severities for chunk in chunks])
    scores = np.concatenate([chunk.judgement.scores for chunk in chunks])
    rows = _Rows(
        times=_times(chunks),
        severities=severities,
        alarms=np.concatenate([chunk.judgement.is_anomaly for chunk in chunks]),
        heights=heights(
            severities, scores, champion.threshold.value, champion.version.config.score
        ),
    )
    alarming = _alarming_rows(chunks, rows.alarms)
    sources = _sources(chunks)
    events = _events(champion, alarming, sources)
    blocks = _blocks(sources, rows, events)
    report = Report(
        champion.uid,
        champion.number,
        champion.generation,
        tuple(_bucket_counts(rows, champion.generation, regimes, now)),
        tuple(block.block for block in blocks),
    )
    order = [row for block in blocks for row in block.kept_rows]
    return ReportWithEvents(
        report, [events[row] for row in order], [digest(row.x) for row in alarming]
    )


class _Alarming(NamedTuple):
    """An alarming row whose vector x (d,) was kept.

    `number` is its index among all rows of the report, `place` its index among those of `chunk`.
    """

    number: int
    chunk: _Chunk
    place: int
    x: NDArray[np.float32]

    @property
    def severity(self) -> float:
        return float(self.chunk.judgement.severities[self.place])


def _alarming_rows(chunks: Sequence[_Chunk], alarms: NDArray[np.bool_]) -> list[_Alarming]:
    """Return the alarming rows whose vectors were kept, in order, at most DIGESTS of them."""
    numbers = np.flatnonzero(alarms)
    if not len(numbers):
        return []
    starts = np.cumsum([0] + [len(chunk.judgement.scores) for chunk in chunks])
    chunk_of = np.searchsorted(starts, numbers, side="right") - 1
    rows: list[_Alarming] = []
    for number, i in zip(numbers.tolist(), chunk_of.tolist(), strict=True):
        chunk, place = chunks[i], number - int(starts[i])
        row = place
        if chunk.kept is not None:
            row = int(np.searchsorted(chunk.kept, place))
            if row >= len(chunk.kept) or chunk.kept[row] != place:
                continue  # this row is not among the most severe rows of its answer
        rows.append(_Alarming(number, chunk, place, chunk.X[row]))
        if len(rows) == DIGESTS:
            break
    return rows


class _Rows(NamedTuple):
    """All rows of a report in order. Each column is (n,)."""

    times: NDArray[np.float64]
    severities: NDArray[np.float64]
    alarms: NDArray[np.bool_]
    heights: NDArray[np.float64]


def _times(chunks: Sequence[_Chunk]) -> NDArray[np.float64]:
    sizes = [len(chunk.judgement.scores) for chunk in chunks]
    times = np.repeat([chunk.at for chunk in chunks], sizes)
    start = 0
    for chunk, size in zip(chunks, sizes, strict=True):
        if chunk.tags.timestamps is not None:
            times[start : start + size] = chunk.tags.timestamps
        start += size
    return times


def _most_severe(
    severities: NDArray[np.float64], rows: NDArray[np.intp], sources: Sequence[str] | None
) -> NDArray[np.intp]:
    """Return the places in `rows` of at most EVENTS rows to keep, ascending.

    `rows` (a,) are the ascending numbers of the alarming rows, and `severities` (a,) their
    severities. `sources` has the source of every row, alarming or not. One row of each source is
    kept, then a second one of each, and so on. In a source, it is the most severe row of each run,
    then the second most severe row of each run. So a long fault leaves rows that explain the other
    incidents.
    """
    order = np.argsort(-severities, kind="stable")
    if len(order) > EVENTS:
        for groups in zip(*_runs(rows, sources), strict=True):
            counted: Counter[str | tuple[str, int]] = Counter()
            ranks = []
            for row in order.tolist():
                ranks.append(counted[groups[row]])
                counted[groups[row]] += 1
            order = order[np.argsort(ranks, kind="stable")]
    return np.sort(order[:EVENTS])


def _runs(
    rows: NDArray[np.intp], sources: Sequence[str] | None
) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the run and the source of each alarming row. A run is a source and a number."""
    passed: Counter[str] = Counter()  # rows of each source so far
    latest: dict[str, tuple[int, int]] = {}  # run and place of each source's latest alarming row
    before = 0
    for row in rows.tolist():
        source = "" if sources is None else sources[row]
        if sources is not None:
            passed.update(sources[before : row + 1])
        place = row if sources is None else passed[source]
        run, last = latest.get(source, (0, place))
        run += place - last > RUN
        latest[source], before = (run, place), row + 1
        yield (source, run), source


def _bucket_counts(
    rows: _Rows, generation: int, regimes: Sequence[int], now: float
) -> list[BucketCounts]:
    """Return the counts of the rows by minute or hour."""
    times, severities, alarms = rows.times, rows.severities, rows.alarms
    minutes = times // history.MINUTE
    if (np.diff(minutes) < 0).any():
        order = np.argsort(minutes, kind="stable")
        times, severities, alarms = times[order], severities[order], alarms[order]
        minutes = minutes[order]
    starts = np.flatnonzero(np.diff(minutes, prepend=minutes[:1] - 1))
    buckets: dict[tuple[int, int], Bucket] = {}
    for start, stop in zip(starts, [*starts[1:], len(times)], strict=True):
        part = slice(int(start), int(stop))
        bucket = history.bucket_of(
            severities[part], int(np.count_nonzero(alarms[part])), generation
        )
        history.add(buckets, place_of(float(times[start]), now), bucket)
    # The placed rows are only a sample. They count in the bucket with the most rows.
    if buckets and regimes:
        fullest = max(buckets.values(), key=lambda bucket: bucket.rows)
        few = min(len(regimes), len(fullest.regimes))
        fullest.regimes[:few] = np.asarray(regimes[:few])
    return [BucketCounts.of(step, place, counts) for (step, place), counts in buckets.items()]


def _events(
    champion: Champion, alarming: Sequence[_Alarming], sources: Sequence[str] | None
) -> dict[int, Event]:
    """Return the most severe alarming rows as events, by row number, in order.

    `sources` has the source of every row, alarming or not.
    """
    if not alarming:
        return {}
    numbers = np.array([row.number for row in alarming])
    places = _most_severe(np.array([row.severity for row in alarming]), numbers, sources)
    severest = [alarming[place] for place in places.tolist()]
    X = np.stack([row.x for row in severest])
    attributions = champion.version.explain(X, ATTRIBUTED, SEEN.word)
    words = _words_of(champion, X)
    events = {}
    for (number, chunk, place, x), row_attributions, row_words in zip(
        severest, attributions, words, strict=True
    ):
        events[number] = Event(
            at=chunk.at,
            vector=x,
            score=float(chunk.judgement.scores[place]),
            p_value=float(chunk.judgement.p_values[place]),
            severity=float(chunk.judgement.severities[place]),
            version=champion.number,
            generation=champion.generation,
            attributions=tuple(
                Attribution(*row_attribution) for row_attribution in row_attributions
            ),
            timestamp=chunk.tags.timestamp(place),
            source=chunk.tags.source(place),
            client_id=chunk.tags.id(place),
            words=row_words,
        )
    return events


def _words_of(champion: Champion, X: Array) -> list[dict[int, str]]:
    """Return the words of each row of X (n, w), by the positions of their features."""
    places = champion.version.config.categories(X.shape[1])
    if not places:
        return [{}] * len(X)
    rows = champion.version.rows_with_words(X, SEEN.word)
    return [{place: row[place] for place in places} for row in rows]


class _Block(NamedTuple):
    """A block, and the row numbers of its kept rows in order."""

    block: Block
    kept_rows: list[int]


def _sources(chunks: Sequence[_Chunk]) -> list[str] | None:
    """Return the source of each row, None if no row has one."""
    if all(chunk.tags.sources is None for chunk in chunks):
        return None
    return [
        source
        for chunk in chunks
        for source in chunk.tags.sources or ("",) * len(chunk.judgement.scores)
    ]


def _blocks(
    sources: Sequence[str] | None, rows: _Rows, events: Mapping[int, Event]
) -> list[_Block]:
    """Return one block for each source: at most SOURCES of them, those with alarms first."""
    if sources is None:
        return [_block("", None, rows, events)]
    by_source: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        by_source.setdefault(source, []).append(number)
    alarming = {source: rows.alarms[numbers].any() for source, numbers in by_source.items()}
    chosen = sorted(by_source, key=lambda source: not alarming[source])[:SOURCES]
    return [_block(source, np.array(by_source[source]), rows, events) for source in chosen]


def _block(
    source: str, chosen: NDArray[np.int64] | None, rows: _Rows, events: Mapping[int, Event]
) -> _Block:
    """Return the block of the rows with the numbers `chosen` (m,). None means all rows."""
    positions = np.flatnonzero(rows.alarms if chosen is None else rows.alarms[chosen])
    unlisted = max(0, len(positions) - LISTED)
    if unlisted:  # list the first and the last alarming rows: no alarming row is missing in between
        positions = np.concatenate([positions[: LISTED // 2], positions[-LISTED // 2 :]])
    numbers = positions if chosen is None else chosen[positions]
    listed = list(zip(positions.tolist(), numbers.tolist(), strict=True))
    block = Block(
        source,
        len(rows.times) if chosen is None else len(chosen),
        float(rows.times.max() if chosen is None else rows.times[chosen].max()),
        tuple(positions.tolist()),
        tuple(rows.times[numbers].tolist()),
        tuple(rows.severities[numbers].tolist()),
        tuple((place, _kept_row(events[row])) for place, row in listed if row in events),
        unlisted,
        tuple(rows.heights[numbers].tolist()),
    )
    return _Block(block, [row for _, row in listed if row in events])


def _kept_row(event: Event) -> KeptRow:
    return KeptRow(
        "", event.time, event.severity, event.p_value, event.score, b"", event.attributions,
        client_id=event.client_id,
    )  # fmt: skip
