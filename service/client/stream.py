"""Sends rows in the order of time, and adds the earlier rows that a context needs."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.client.answers import Attribution, DetectorStatus, ScoreAnswer
from service.client.client import Client
from service.client.configs import DetectorConfig
from service.client.encoding import SentRows

_SOURCES = 100_000  # above this the tail of the source that was silent for longest is dropped
_MOST_ROWS = 1000  # the most context rows of one request
_EXPLAINED = 20_000  # the most numbers that one request explains: each costs a score of its row
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_COLUMNS = ("scores", "p_values", "severities", "is_anomaly", "states", "attributions")


class Tail(NamedTuple):
    """The latest rows (m, d) of one source, and their times (m,) if rows have times."""

    X: NDArray[Any]
    times: NDArray[np.float64] | None


class Part(NamedTuple):
    """One request: rows X (m, d) with times and sources. Some of the rows are context.

    The other k rows came from the caller. `places` (k,) are their indices in the rows of the
    caller, and `rows` (k,) are their indices in X.
    """

    X: NDArray[Any]
    times: NDArray[np.float64] | None
    sources: list[str] | None
    context_rows: int
    places: NDArray[np.intp]
    rows: NDArray[np.intp]


class Tails:
    """Remembers, for each source, the latest rows that a context needs."""

    def __init__(self, context: Mapping[str, Any] | None) -> None:
        self._rows, self._seconds = 0, None
        if context is not None and "deviation" in context["derive"]:
            self._rows = int(context["over"])
            every = context.get("every")
            if every is not None:
                self._seconds = (self._rows + 1) * float(every[:-1]) * _UNITS[every[-1]]
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    def parts(
        self, X: NDArray[Any], times: NDArray[np.float64] | None, sources: Sequence[str] | None
    ) -> Iterator[Part]:
        """Yield requests with the tail and the rows of each source; remember the new tails."""
        if not self._rows:
            everything = np.arange(len(X))
            named = None if sources is None else list(sources)
            yield Part(X, times, named, 0, everything, everything)
            return
        owners = np.array(sources if sources is not None else [""] * len(X), dtype=object)
        by_length: dict[int, list[tuple[str, Tail, NDArray[np.intp]]]] = {}
        for source in dict.fromkeys(owners.tolist()):
            indices = np.flatnonzero(owners == source)
            tail = self._tails.pop(source, None) or Tail(
                X[:0], None if times is None else times[:0]
            )
            self._tails[source] = self._new_tail(
                tail, X[indices], None if times is None else times[indices]
            )
            by_length.setdefault(len(tail.X), []).append((source, tail, indices))
        while len(self._tails) > _SOURCES:
            self._tails.popitem(last=False)
        for length, members in by_length.items():
            yield _request_of(length, members, X, times, named=sources is not None)

    @property
    def needs_earlier_rows(self) -> bool:
        """Whether a row needs earlier rows of its source."""
        return self._rows > 0

    def context_of_next(
        self, rows: NDArray[np.intp], times: NDArray[np.float64] | None
    ) -> NDArray[np.intp]:
        """Return which of the first rows of a source are context of its next row.

        `rows` (m,) are the indices of the first rows, and `times` (m,) are their times.
        """
        none = Tail(rows[:0], None if times is None else times[:0])
        return self._new_tail(none, rows, times).X

    def _new_tail(self, tail: Tail, X: NDArray[Any], times: NDArray[np.float64] | None) -> Tail:
        X = np.concatenate([tail.X, X])
        if times is None or tail.times is None:
            return Tail(X[-self._rows :], times)
        times = np.concatenate([tail.times, times])
        newer = times > np.concatenate([[-np.inf], np.maximum.accumulate(times)[:-1]])
        X, times = X[newer], times[newer]  # a late row is not used as context
        if self._seconds is None:
            return Tail(X[-self._rows :], times[-self._rows :])
        recent = times >= times[-1] - self._seconds
        return Tail(X[recent][-_MOST_ROWS:], times[recent][-_MOST_ROWS:])


def _request_of(
    length: int,
    members: list[tuple[str, Tail, NDArray[np.intp]]],
    X: NDArray[Any],
    times: NDArray[np.float64] | None,
    *,
    named: bool,
) -> Part:
    rows: list[NDArray[Any]] = []
    stamps: list[NDArray[np.float64]] = []
    names: list[str] = []
    places, rows_sent, at = [], [], 0
    for source, tail, indices in members:
        rows += [tail.X, X[indices]]
        if times is not None and tail.times is not None:
            stamps += [tail.times, times[indices]]
        count = length + len(indices)
        names += [source] * count
        places.append(indices)
        rows_sent.append(np.arange(at + length, at + count))
        at += count
    return Part(
        np.concatenate(rows),
        np.concatenate(stamps) if stamps else None,
        names if named else None,
        length,
        np.concatenate(places),
        np.concatenate(rows_sent),
    )


class Stream:
    """Scores or learns rows of one detector, and sends the earlier rows of the context with them.

    Give the rows of a source in the order of time. If a column of the detector is a category,
    X (n, d) is an array of objects: numbers and words. A stream keeps the latest rows of each
    source, as many as the context of the detector needs. Without a context it keeps no rows.
    """

    def __init__(
        self, client: Client, name: str, config: Mapping[str, object] | None = None
    ) -> None:
        """Make a stream. Without `config`, the config comes from the service."""
        in_force: Any = config_in_force(client.detector(name)) if config is None else config
        self._client, self._name = client, name
        self._names = _category_names(in_force)
        self._tails = Tails(in_force.get("context"))

    def score(
        self,
        X: ArrayLike,
        times: ArrayLike | None = None,
        sources: Sequence[str] | None = None,
        *,
        why: int | None = None,
        **options: Any,
    ) -> ScoreAnswer:
        """Score rows X (n, d) as `Client.score` does; the answer has one entry for each row.

        `why` is the number of attributions for each row that alarms; other rows may have none. This
        is much faster than `explain`.
        """
        joined: Any = {}
        table = self._table(X)
        for part in self._parts(table, times, sources):
            at_once = (
                why is not None and self._tails.needs_earlier_rows and part.X.size <= _EXPLAINED
            )
            sent_options = {**options, "explain": why} if at_once else options
            answer = self._client.score(
                self._name, self._rows_to_send(part), **_fields(part), **sent_options
            )
            if why is not None and not at_once:
                answer["attributions"] = self._reasons(part, answer["is_anomaly"], why)
            for name, value in answer.items():
                if name in _COLUMNS:
                    _fill_in(joined.setdefault(name, [None] * len(table)), value, part)
                else:
                    joined[name] = value
        scored: ScoreAnswer = joined
        return scored

    def _reasons(
        self, part: Part, alarms: Sequence[bool | None], why: int
    ) -> list[list[Attribution]]:
        """Return the attributions of the rows of a request that alarm, [] for other rows."""
        reasons_of_rows: list[list[Attribution]] = [[] for _ in part.X]
        rows = np.flatnonzero([alarm is True for alarm in alarms])
        for indices, context_rows in self._requests_for_reasons(part, rows):
            times = None if part.times is None else part.times[indices]
            sources = None if part.sources is None else [part.sources[i] for i in indices]
            sent = Part(part.X[indices], times, sources, context_rows, indices, indices)
            answer = self._client.score(
                self._name, self._rows_to_send(sent), **_fields(sent), record=False, explain=why
            )
            reasons = answer.get("attributions") or reasons_of_rows
            for i, reason in zip(indices[context_rows:], reasons[context_rows:], strict=False):
                reasons_of_rows[i] = reason
        return reasons_of_rows

    def _requests_for_reasons(
        self, part: Part, rows: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], int]]:
        """Yield the indices of the rows of each request, and how many of the first are context."""
        most = max(1, _EXPLAINED // part.X.shape[1])
        if not self._tails.needs_earlier_rows:
            yield from ((rows[i : i + most], 0) for i in range(0, len(rows), most))
            return
        owners = np.array(part.sources or [""] * len(part.X), dtype=object)
        for source in dict.fromkeys(owners[rows].tolist()):
            indices = np.flatnonzero(owners == source)
            alarms = np.flatnonzero(np.isin(indices, rows))
            for run in np.split(alarms, np.flatnonzero(np.diff(alarms) > 1) + 1):
                for i in range(0, len(run), most):
                    first = indices[: run[i]]
                    times = None if part.times is None else part.times[first]
                    context = self._tails.context_of_next(first, times)
                    yield np.concatenate([context, indices[run[i : i + most]]]), len(context)

    def remember(
        self,
        X: ArrayLike,
        times: ArrayLike | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        """Keep rows X (n, d) as context for later rows. This sends nothing."""
        for _ in self._parts(X, times, sources):
            pass

    def _parts(
        self, X: ArrayLike, times: ArrayLike | None, sources: Sequence[str] | None
    ) -> Iterator[Part]:
        at = None if times is None else np.asarray(times, np.float64)
        return self._tails.parts(self._table(X), at, sources)

    def _table(self, X: ArrayLike) -> NDArray[Any]:
        """Return rows X (n, d), which may be lists, as an array that keeps words and numbers."""
        return np.asarray(X, dtype=None if self._names is None else object)

    def _rows_to_send(self, part: Part) -> SentRows:
        if self._names is None:
            return part.X
        return [dict(zip(self._names, row, strict=True)) for row in part.X.tolist()]

    def learn(
        self,
        X: ArrayLike,
        times: ArrayLike | None = None,
        sources: Sequence[str] | None = None,
        key: str | None = None,
    ) -> dict[str, int]:
        """Learn rows X (n, d) as normal; return counts: accepted, quarantined, duplicate, ..."""
        counts: dict[str, int] = {}
        for number, part in enumerate(self._parts(X, times, sources)):
            key_of_part = None if key is None else f"{key}-{number}"
            answer: Any = self._client.learn(
                self._name, self._rows_to_send(part), key_of_part, **_fields(part)
            )
            left_out = dict(answer.get("not_learned", {}))
            left_out.pop("context", None)
            # The answer to a repeated batch repeats the first counts; do not add them again.
            new_counts = ("duplicate",) if answer["duplicate"] else ("accepted", "quarantined")
            for name, count in [*((name, answer[name]) for name in new_counts), *left_out.items()]:
                counts[name] = counts.get(name, 0) + count
        return counts


def _fill_in(entries: list[Any], column: Any, part: Part) -> None:
    """Write a column of the answer to `part` into the entries of the caller's rows."""
    for place, row in zip(part.places.tolist(), part.rows.tolist(), strict=True):
        entries[place] = column[row]


def config_in_force(status: DetectorStatus) -> DetectorConfig:
    """Return the config of a detector, with the chosen context instead of `auto`.

    As long as no context is chosen, the context is None: rows then need no earlier rows.
    """
    config = status["config"].copy()
    if config.get("context") == "auto":
        chosen: Any = status.get("context")
        config["context"] = chosen["chosen"] if chosen else None
    return config


def _category_names(config: Mapping[str, Any]) -> list[str] | None:
    """Return the column names if a column is a category, else None: words need rows by name."""
    columns = config.get("columns") or []
    if all(column["type"] != "category" for column in columns):
        return None
    return [column["name"] for column in columns]


def _fields(part: Part) -> dict[str, Any]:
    """Return the fields that a request sends beside its rows; empty if there are none."""
    fields: dict[str, Any] = {}
    if part.times is not None:
        fields["timestamps"] = part.times.tolist()
    if part.sources is not None:
        fields["sources"] = part.sources
    if part.context_rows:
        fields["context_rows"] = part.context_rows
    return fields
