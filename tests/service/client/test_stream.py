"""Rows of sources in time: each is sent after the rows of its context."""

from typing import Any

import numpy as np
import pytest

from models.columns import Column
from models.config import Config
from models.context import CONTEXT, LATE, SCORED, WARMING, Context, derive
from service.client import stream as stream_module
from service.client.stream import Stream

OVER = 3
ROWS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
TIMES = 60.0 * np.arange(40)


class Service:
    """Derives features as a service does; the score is the first derived deviation."""

    def __init__(self, **context: Any) -> None:
        self.config = Config(
            columns=(Column("a"), Column("b")), context=Context(over=OVER, **context)
        )

    def detector(self, name: str) -> dict[str, Any]:
        return {"name": name, "config": self.config.to_dict()}

    def score(self, name: str, X: np.ndarray, **body: Any) -> dict[str, Any]:
        assert name == "pump"
        times = body.get("timestamps")
        derived = derive(
            self.config.context, X, times=None if times is None else np.array(times),
            sources=body.get("sources"), context_rows=body.get("context_rows", 0),
        )  # fmt: skip
        scores = [
            float(row[2]) if state == SCORED else None
            for row, state in zip(derived.features, derived.states, strict=True)
        ]
        return {"scores": scores, "states": derived.states.tolist(), "version": 1}

    def learn(self, name: str, X: np.ndarray, key: str | None, **body: Any) -> dict[str, Any]:
        assert key is not None
        states = self.score(name, X, **body)["states"]
        left_out = {"context": states.count(CONTEXT), "warming": states.count(WARMING)}
        counts = {"accepted": states.count(SCORED), "quarantined": 0, "duplicate": 0}
        return counts | {"not_learned": left_out}


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 1, 20, 12]])
@pytest.mark.parametrize("sources", [None, ["a"] * 40, ["a", "b", "b", "c"] * 10])
@pytest.mark.parametrize("context", [{}, {"every": "1m", "fill": "previous"}])
def test_rows_in_pieces_are_judged_as_in_one(sizes, sources, context):
    """However rows are divided into calls, each source's context goes with them."""
    at_once = Service(**context).score(
        "pump", ROWS, timestamps=TIMES.tolist(), sources=sources
    )["scores"]  # fmt: skip
    service = Service(**context)
    stream = Stream(service, "pump")
    scores, at = [], 0
    for size in sizes:
        rows = slice(at, at + size)
        names = None if sources is None else sources[rows]
        scores += stream.score(ROWS[rows], TIMES[rows], names)["scores"]
        at += size
    assert scores == at_once
    assert scores.count(None) >= OVER


def test_a_late_row_is_context_of_no_row():
    """A late row is not part of the context of later rows."""
    stream = Stream(Service(), "pump")
    stream.score(ROWS[:10], TIMES[:10])
    assert stream.score(ROWS[10:11], TIMES[2:3])["states"] == [LATE]
    after = stream.score(ROWS[11:12], TIMES[11:12])["scores"]
    in_order = Service().score(
        "pump", ROWS[[*range(10), 11]], timestamps=TIMES[[*range(10), 11]].tolist()
    )["scores"]  # fmt: skip
    assert after == in_order[-1:]


def test_learning_counts_each_row_once():
    """A row that was sent again as context is not counted again."""
    stream = Stream(Service(), "pump")
    counts = [stream.learn(ROWS[i : i + 10], TIMES[i : i + 10], key="k") for i in range(0, 40, 10)]
    assert [count["accepted"] for count in counts] == [10 - OVER, 10, 10, 10]
    assert [count["warming"] for count in counts] == [OVER, 0, 0, 0]


def test_rows_and_times_may_be_lists():
    """Rows and times in lists are judged like those in arrays."""
    arrays, lists = (Stream(Service(), "pump") for _ in range(2))
    answer = lists.score(ROWS.tolist(), TIMES.tolist())
    assert answer == arrays.score(ROWS, TIMES)


def test_a_detector_without_context_is_sent_rows_as_they_are():
    """For a detector without a context no row is kept or sent twice."""
    service = Service()
    service.config = Config(columns=(Column("a"), Column("b")))
    parts = list(Stream(service, "pump")._tails.parts(ROWS, None, None))
    assert [(len(part.X), part.context_rows) for part in parts] == [(40, 0)]


class Explaining(Service):
    """Judges rows over 0.5 as anomalies, and remembers which requests asked for reasons."""

    def __init__(self, **context):
        super().__init__(**context)
        self.explained = []

    def score(self, name, X, *, explain=None, **sent):
        answer = super().score(name, X, **sent)
        states = answer["states"]
        answer["is_anomaly"] = [
            bool(x[0] > 0.5) if state == SCORED else None
            for state, x in zip(states, X, strict=True)
        ]
        if explain:
            self.explained.append(len(X) - states.count(CONTEXT))
            answer["attributions"] = [[score] for score in answer["scores"]]
        return answer


@pytest.mark.parametrize("sources", [None, ["a", "b", "b", "c"] * 10])
@pytest.mark.parametrize("most", [20_000, 8, 2])
def test_the_reasons_of_alarms_are_those_of_their_contexts(monkeypatch, most, sources):
    """In a large request only rows that alarm are explained, each with its own earlier rows."""
    monkeypatch.setattr(stream_module, "_EXPLAINED", most)
    service = Explaining()
    answer = Stream(service, "pump").score(ROWS, TIMES, sources, why=1)
    alarms = [i for i, alarm in enumerate(answer["is_anomaly"]) if alarm]
    assert alarms
    assert all(answer["attributions"][i] == [answer["scores"][i]] for i in alarms)
    explained = 40 if most > 100 else len(alarms)
    assert sum(service.explained) == explained
