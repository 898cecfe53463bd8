"""Rules for rows: rows with the machine off, and deviations that do not count."""

import json
from typing import Any

import numpy as np
import orjson
import pytest

from models import Config, Model, train
from models.columns import Column
from models.context import Context, derive
from service.domain.champion import Champion
from service.domain.detector_config import DetectorConfig, check_rules, parse
from service.problems import Unprocessable
from service.scoring.champions import Champions
from service.scoring.core import Judged, Scoring
from service.scoring.request import ScoreRequest
from service.scoring.request_rows import normal_rows, not_learned
from service.scoring.tables import ColumnRoles
from service.scoring.vectors import JSON

RNG = np.random.default_rng(0)
COLUMNS = (Column("temp"), Column("flow"), Column("running", "flag"))
LEARNED = np.column_stack(
    [RNG.normal(50, 1, 500), RNG.normal(30, 1, 500), RNG.random(500) < 0.9]
).astype(np.float32)
GOOD = [50.0, 30.0, 1.0]
OVER = 3


@pytest.fixture(scope="module")
def versions():
    """Return a version that judges rows alone, and one with a context."""
    model = Model(epochs=10, hidden=(8,), latent=2)
    plain = Config(columns=COLUMNS, model=model)
    timed = Config(columns=COLUMNS, model=model, context=Context(over=OVER))
    features = derive(timed.context, LEARNED, timed.numbers(3)).features[OVER:]
    return {"plain": train(None, LEARNED, plain), "timed": train(None, features, timed)}


def ask(version, rows, **rules: Any) -> tuple[dict[str, Any], list[int]]:
    """Return the answer to rows under rules, and the number of rows that recorders got."""
    recorded_rows = []

    class Notes:
        def scored(self, judged: Judged, _seconds: float) -> None:
            recorded_rows.append(len(judged.X))

    champions = Champions(1)
    champions.install(
        Champion(
            name="pump",
            uid="u",
            number=1,
            generation=1,
            config_revision=1,
            version=version,
            threshold=version.threshold_for({"fpr": 0.01}),
            rules=parse(rules).rules,
        )
    )
    body = json.dumps({"vectors": rows}).encode()
    reply = Scoring(champions, (Notes(),)).score(ScoreRequest("pump", body, JSON))
    assert reply.status == 200, reply.body
    return orjson.loads(reply.body), recorded_rows


OFF = {"column": "running", "in": [False]}


def test_rows_that_are_off_are_neither_judged_nor_recorded(versions):
    """A row with the machine off is null in all columns, and is not recorded."""
    body, recorded_rows = ask(versions["plain"], [GOOD, [0.0, 0.0, 0.0], GOOD], off=OFF)
    assert body["states"] == ["scored", "off", "scored"]
    assert [score is None for score in body["scores"]] == [False, True, False]
    assert recorded_rows == [2]


def test_rows_that_are_off_are_not_learned():
    """Rows with the machine off are not learned, and the answer counts them."""
    config = parse({"columns": [{"name": c.name, "type": c.type} for c in COLUMNS], "off": OFF})
    body = json.dumps({"vectors": [GOOD, [0.0, 0.0, 0.0]]}).encode()
    rows = normal_rows(JSON, body, config, ColumnRoles(), config.rules).model
    assert rows.X.tolist() == [GOOD]
    assert not_learned(rows) == {"not_learned": {"off": 1}}


COOL, HOT = [20.0, 30.0, 1.0], [80.0, 30.0, 1.0]
COOL_WITHOUT_FLOW = [20.0, 2.0, 1.0]


@pytest.mark.parametrize("kind", ["plain", "timed"])
@pytest.mark.parametrize(
    ("rule", "states"),
    [
        (None, ["scored"] * 3),
        ({"column": "temp", "below": 0}, ["ignored", "scored", "scored"]),
        ({"column": "temp", "above": 0}, ["scored", "ignored", "scored"]),
        ({"column": "temp", "below": 100}, ["ignored", "ignored", "scored"]),
        ({"column": "flow", "below": 0}, ["scored"] * 3),
    ],
)
def test_an_anomaly_by_an_ignored_deviation_is_ignored(versions, kind, rule, states):
    """An anomaly by a column that does not count is ignored; with another cause it is not."""
    rules = {} if rule is None else {"ignore": [rule]}
    for row, state in zip((COOL, HOT, COOL_WITHOUT_FLOW), states, strict=True):
        body, _ = ask(versions[kind], [GOOD] * OVER + [row], **rules)
        assert body["scores"][-1] > body["threshold"]
        assert body["is_anomaly"][-1] == (state == "scored")
        if rule is not None:
            assert body["states"][-1] == state


def test_a_detector_without_rules_has_no_states(versions):
    """The answer of a detector without rules has no states."""
    assert "states" not in ask(versions["plain"], [GOOD])[0]


@pytest.mark.parametrize(
    ("rules", "refusal"),
    [
        ({"off": {"column": "running"}}, "off.in"),
        ({"off": {"column": "running", "in": []}}, "off.in"),
        ({"off": {"column": "running", "in": [1], "x": 1}}, "off"),
        ({"ignore": [{"column": "temp"}]}, "either `above` or `below`"),
        ({"ignore": [{"column": "temp", "above": 1, "below": 1}]}, "either"),
        ({"ignore": [{"column": "temp", "above": -1}]}, "ignore"),
    ],
)
def test_rules_that_never_apply_are_refused(rules, refusal):
    """A rule that can never apply is 422 with the field's name."""
    with pytest.raises(Unprocessable, match=refusal):
        parse(rules)


def test_a_rule_is_of_a_column_of_the_detector():
    """A rule must name a column of the detector; a config with rules is read back equal."""
    config = parse({"features": ["a"], "off": {"column": "a", "in": [0, True]},
                    "ignore": [{"column": "a", "below": 2.5}]})  # fmt: skip
    check_rules(config)
    assert parse(config.to_dict()) == config
    for wrong in ({"off": {"column": "b", "in": [1]}}, {"ignore": [{"column": "b", "above": 1}]}):
        with pytest.raises(Unprocessable, match="has no such column"):
            check_rules(parse({"features": ["a"], **wrong}))
    check_rules(DetectorConfig())
