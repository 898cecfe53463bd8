"""Rows of sources in time, sent with the rows before them, so that a user need not keep those."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.client.answers import DetectorStatus, ScoreAnswer
from service.client.client import Client
from service.client.configs import DetectorConfig
from service.client.encoding import Sent

_SOURCES = 100_000  # whose tails are kept; the one unheard of for longest goes
_MOST_ROWS = 1000  # of context in one request
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_COLUMNS = ("scores", "p_values", "severities", "is_anomaly", "states", "attributions")


class Tail(NamedTuple):
    """The latest rows (m, d) of one source, and their times (m,) where rows have any."""

    X: NDArray[Any]
    times: NDArray[np.float64] | None


class Part(NamedTuple):
    """One request: rows X (m, d) with what is said of them, of which some are context.

    `places` (k,) are where in the client's rows those stand that are not context, `rows` (k,) where
    in X.
    """

    X: NDArray[Any]
    times: NDArray[np.float64] | None
    sources: list[str] | None
    context_rows: int
    places: NDArray[np.intp]
    rows: NDArray[np.intp]


class Tails:
    """Remembers the rows that a context needs, by source."""

    def __init__(self, context: Mapping[str, Any] | None) -> None:
        self._rows, self._seconds = 0, None
        if context is not None and "deviation" in context["derive"]:
            self._rows = int(context["over"])
            every = context.get("every")
            if every is not None:
                self._seconds = (self._rows + 1) * float(every[:-1]) * _UNITS[every[-1]]
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    def parts(
        self,
        X: NDArray[Any],
        times: NDArray[np.float64] | None,
        sources: Sequence[str] | None,
    ) -> Iterator[Part]:
        """Yield the rows in requests, each source after its tail; remember the new tails."""
        if not self._rows:
            everything = np.arange(len(X))
            named = None if sources is None else list(sources)
            yield Part(X, times, named, 0, everything, everything)
            return
        owners = np.array(sources if sources is not None else [""] * len(X), dtype=object)
        by_length: dict[int, list[tuple[str, Tail, NDArray[np.intp]]]] = {}
        for source in dict.fromkeys(owners.tolist()):
            own = np.flatnonzero(owners == source)
            tail = self._tails.pop(source, None) or Tail(
                X[:0], None if times is None else times[:0]
            )
            self._tails[source] = self._kept(tail, X[own], None if times is None else times[own])
            by_length.setdefault(len(tail.X), []).append((source, tail, own))
        while len(self._tails) > _SOURCES:
            self._tails.popitem(last=False)
        for length, members in by_length.items():
            yield _joined(length, members, X, times, named=sources is not None)

    def _kept(self, tail: Tail, X: NDArray[Any], times: NDArray[np.float64] | None) -> Tail:
        X = np.concatenate([tail.X, X])
        if times is None or tail.times is None:
            return Tail(X[-self._rows :], times)
        times = np.concatenate([tail.times, times])
        newer = times > np.concatenate([[-np.inf], np.maximum.accumulate(times)[:-1]])
        X, times = X[newer], times[newer]  # what came late is context of nothing
        if self._seconds is None:
            return Tail(X[-self._rows :], times[-self._rows :])
        recent = times >= times[-1] - self._seconds
        return Tail(X[recent][-_MOST_ROWS:], times[recent][-_MOST_ROWS:])


def _joined(
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
    places, where, at = [], [], 0
    for source, tail, own in members:
        rows += [tail.X, X[own]]
        if times is not None and tail.times is not None:
            stamps += [tail.times, times[own]]
        count = length + len(own)
        names += [source] * count
        places.append(own)
        where.append(np.arange(at + length, at + count))
        at += count
    return Part(
        np.concatenate(rows),
        np.concatenate(stamps) if stamps else None,
        names if named else None,
        length,
        np.concatenate(places),
        np.concatenate(where),
    )


class Stream:
    """Rows of one detector in the order of time, scored or learned with what was before them.

    Where a column of the detector is a category, X (n, d) is of objects: numbers and words.
    Keeps the latest rows of each source for as long as it lives, as many as the detector's context
    needs; none where it has no context. Rows of a source are given in the order of time.
    """

    def __init__(
        self, client: Client, name: str, config: Mapping[str, object] | None = None
    ) -> None:
        """Ask for the detector's `config` where it is not given."""
        held: Any = config_in_force(client.detector(name)) if config is None else config
        self._client, self._name = client, name
        self._names = _named(held)
        self._tails = Tails(held.get("context"))

    def score(
        self,
        X: NDArray[Any],
        times: NDArray[np.float64] | None = None,
        sources: Sequence[str] | None = None,
        **options: Any,
    ) -> ScoreAnswer:
        """Return the answer to rows X (n, d), an entry a row, as `Client.score` does."""
        whole: Any = {}
        for part in self._tails.parts(X, times, sources):
            answer: Any = self._client.score(self._name, self._sent(part), **_said(part), **options)
            for column in _COLUMNS:
                if column in answer:
                    entries = whole.setdefault(column, [None] * len(X))
                    for place, row in zip(part.places.tolist(), part.rows.tolist(), strict=True):
                        entries[place] = answer[column][row]
            whole |= {name: value for name, value in answer.items() if name not in _COLUMNS}
        found: ScoreAnswer = whole
        return found

    def remember(
        self,
        X: NDArray[Any],
        times: NDArray[np.float64] | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        """Take note of rows X (n, d) as what was before those that come: nothing is sent."""
        for _ in self._tails.parts(X, times, sources):
            pass

    def _sent(self, part: Part) -> Sent:
        if self._names is None:
            return part.X
        return [dict(zip(self._names, row, strict=True)) for row in part.X.tolist()]

    def learn(
        self,
        X: NDArray[Any],
        times: NDArray[np.float64] | None = None,
        sources: Sequence[str] | None = None,
        key: str | None = None,
    ) -> dict[str, int]:
        """Send rows X (n, d) as normal; return counts: accepted, quarantined, duplicate, ..."""
        counts: dict[str, int] = {}
        for number, part in enumerate(self._tails.parts(X, times, sources)):
            own = None if key is None else f"{key}-{number}"
            answer: Any = self._client.learn(self._name, self._sent(part), own, **_said(part))
            left_out = dict(answer.get("not_learned", {}))
            left_out.pop("context", None)
            # A repeated batch is answered as it was the first time; nothing was accepted anew.
            news = ("duplicate",) if answer["duplicate"] else ("accepted", "quarantined")
            for name, count in [*((name, answer[name]) for name in news), *left_out.items()]:
                counts[name] = counts.get(name, 0) + count
        return counts


def config_in_force(status: DetectorStatus) -> DetectorConfig:
    """Return the config of a detector with the context that was chosen in place of `auto`.

    None as long as none is chosen: rows then need no others before them.
    """
    config = status["config"].copy()
    if config.get("context") == "auto":
        chosen: Any = status.get("context")
        config["context"] = chosen["chosen"] if chosen else None
    return config


def _named(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the columns where one is a category: rows then go by name."""
    columns = config.get("columns") or []
    if all(one["type"] != "category" for one in columns):
        return None
    return [one["name"] for one in columns]


def _said(part: Part) -> dict[str, Any]:
    """Return what a request says of its rows; nothing for rows that need no more."""
    said: dict[str, Any] = {}
    if part.times is not None:
        said["timestamps"] = part.times.tolist()
    if part.sources is not None:
        said["sources"] = part.sources
    if part.context_rows:
        said["context_rows"] = part.context_rows
    return said
