import numpy as np
import pytest

from models import Config, Model, Version, train
from service.domain.attribution import Attribution
from service.domain.event import Event
from service.domain.label_queries import ASKED, choose


@pytest.fixture(scope="module")
def version() -> Version:
    """Return a version that learned three independent standard normal features."""
    X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    return train(None, X, Config(features=("a", "b", "c"), model=Model(epochs=30)))


def event(number: int, vector: list[float], severity: float, feature: str | None = None) -> Event:
    """Return an anomaly of version 1 in which `feature` is above its expected value."""
    blamed = Attribution(feature, 9.0, 9.0, 0.0)
    return Event(
        at=0.0, vector=np.array(vector, np.float32), score=9.0, p_value=1e-3, severity=severity,
        version=1, generation=1, attributions=(blamed,) if feature else (), id=f"{number}-0",
    )  # fmt: skip


def test_one_of_many_similar_events_comes_first(version: Version):
    """Of five events with the same feature, the one of middle severity is asked for."""
    events = [event(i, [0, 9, 0], 2.0 + i, "b") for i in range(5)]
    queries = choose(events, set(), version, version.threshold_for({"fpr": 0.01}))
    assert queries[0].event == "2-0"
    assert queries[0].reason == (
        "one of 5 similar events: nearest to regime 1, b above what is expected"
    )


def test_disagreements_come_before_events_near_the_threshold(version: Version):
    """Events that this version finds normal come first; clear anomalies are not asked about."""
    events = [
        event(1, [9, 9, 9], 5.0),
        event(2, [9, 9, 9], 1.1),
        event(3, [0, 0, 0], 3.0),
    ]
    queries = choose(events, set(), version, version.threshold_for({"fpr": 0.01}))
    assert [query.event for query in queries] == ["3-0", "2-0"]
    assert queries[0].reason == "normal to the champion, an anomaly to version 1"
    assert queries[1].reason == "near the threshold: severity 1.10"


def test_answered_and_foreign_events_are_left_out(version: Version):
    """Labelled events and events of another dimension are left out; there are at most ten."""
    threshold = version.threshold_for({"fpr": 0.01})
    events = [event(i, [9, 9, 9], 1.0 + i / 40) for i in range(30)]
    assert choose(events[:1], {"0-0"}, version, threshold) == ()
    assert choose([event(1, [9, 9], 1.0)], set(), version, threshold) == ()
    assert len(choose(events, set(), version, threshold)) == ASKED
