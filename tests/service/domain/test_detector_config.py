"""A detector's configuration, from JSON and back."""

import orjson
import pytest

from models import Config
from service.domain.detector_config import DetectorConfig, left_out, parse, with_fields_of
from service.problems import Unprocessable

DEFAULTS = {
    "dimension": None, "features": None, "columns": None, "context": None,
    "kind": "vae", "strategy": "replay", "weights": "proportional",
    "replay": {"latents": "fitted", "decode": "sample"}, "score": "auto",
    "threshold": {"fpr": 0.01}, "gate": "enforce", "admission": "quarantine",
    "release_after_seconds": None,
    "missing": "refuse",
    "retrain": {
        "min_vectors": 1000, "max_age_seconds": 3600, "on_drift": False, "paused": False,
    },
    "keep_learned_seconds": 0, "off": None, "ignore": None, "shape": None,
    "model": "auto", "seed": 0,
    "incident": {"false_per_day": 1.0, "close_after_seconds": 300},
}  # fmt: skip


def test_an_empty_config_gets_the_defaults() -> None:
    """`{}` and an empty body give the defaults of the contract."""
    assert parse(b"{}") == parse(b"") == DetectorConfig()
    assert parse(b"{}").to_dict() == DEFAULTS


def test_a_shape_gives_the_dimension() -> None:
    """A shape gives the dimension, and is kept."""
    config = parse(b'{"shape": [2, 3]}')
    assert (config.dimension, config.shape, parse(config.to_dict())) == (6, (2, 3), config)


def test_a_config_is_read_back_equal() -> None:
    """A full config is read back equal, and is valid for the learner."""
    config = parse(
        {
            "features": ["a", "b"],
            "weights": {"w_prev": 0.25, "w_new": 0.75},
            "threshold": {"quantile": 0.95},
            "retrain": {
                "min_vectors": None,
                "max_age_seconds": None,
                "paused": True,
                "shadow": {"vectors": 500, "seconds": 5},
            },
            "model": {"hidden": [32, 16], "epochs": 3},
        }
    )
    assert parse(config.to_dict()) == config
    learner = Config.from_dict(config.to_dict())
    assert (learner.dimension, learner.weights) == (2, config.weights)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"kind": "secret"}', "kind: choose one of vae, mahalanobis"),
        (b'{"retrain": {"secret": 1}}', "retrain: unknown field; the fields are min_vectors"),
        (
            b'{"retrain": {"shadow": {"vectors": 9, "secret": 1}}}',
            "retrain.shadow: unknown field; the fields are vectors, seconds",
        ),
        (b'{"retrain": {"shadow": {"vectors": 0}}}', "retrain.shadow.vectors: "),
        (b'{"secret": 1}', "unknown field; the fields are dimension"),
        (b'{"model": {"secret": 1}}', "model: unknown field; the fields are latent"),
        (b'{"retrain": {"min_vectors": 0}}', "retrain.min_vectors: "),
        (b'{"model": "secret"}', "model: give 'auto', or an object of latent"),
        (b'{"model": {"latent": 0}}', "model.latent: "),
        (b'{"threshold": {"secret": 1}}', "threshold: choose one of fpr, pot, "),
        (
            b'{"threshold": {"labels": {"secret": 1}}}',
            "threshold.labels: give {'beta': b}, or {'miss",
        ),
        (
            b'{"threshold": {"labels": {"beta": 0}}}',
            "threshold.labels.beta: give a number above 0 and ",
        ),
        (b'{"threshold": {"labels": 0.01}}', "threshold.labels: give {'beta': b}, or "),
        (
            b'{"threshold": {"fpr": {"beta": 1}}}',
            "threshold.fpr: give a number above 0 and below 0.5",
        ),
        (b'{"shape": [8, 8], "dimension": 60}', "shape: 8 by 8 are 64 pixels, not 60"),
        (b'{"shape": [8]}', "shape"),
        (b'{"shape": [257, 256]}', "shape: a picture has at most 65536 pixels"),
        (b'{"shape": [0, 8]}', "shape"),
        (b'{"shape": [2, 1], "context": {"over": 3}}', "shape: a picture has neither"),
        (b"secret", "not JSON"),
    ],
)
def test_refusals_name_field_and_choices_without_the_value(body: bytes, words: str) -> None:
    """An error names the field and the choices, never a given text."""
    with pytest.raises(Unprocessable) as caught:
        parse(body)
    assert words in caught.value.detail
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"ignore":[' + b"{}," * 300_000 + b"{}]}", "more fields or values"),
        (b"{" + b'"a":1,' * 20_000 + b'"a":1}', "more fields or values"),
        (b'{"features":[' + b"1," * 60_000 + b"1]}", "More than 10000 values"),
    ],
    ids=["values", "fields", "errors"],
)
def test_a_config_with_too_many_values_is_refused_at_once(body: bytes, words: str) -> None:
    """The values are counted first, and not validated and named one by one."""
    with pytest.raises(Unprocessable, match=words):
        parse(body)


def test_a_config_of_65536_columns_is_accepted() -> None:
    """A config may have 65,536 columns, also with names that look like JSON."""
    columns = [{"name": f"{{a:{i},b}}", "type": "number"} for i in range(65_536)]
    assert len(parse(orjson.dumps({"columns": columns})).columns or ()) == 65_536


def test_a_config_without_a_score_keeps_that_of_the_detector() -> None:
    """A new detector gets the default score; an existing one of the same kind keeps its own."""
    stored = parse('{"score": "neighbours"}')
    for body, kept in (("{}", "neighbours"), ('{"score": "auto"}', "auto")):
        assert with_fields_of(parse(body), stored, left_out(body)).score == kept
    other = parse('{"kind": "mahalanobis"}')
    assert with_fields_of(other, stored, left_out('{"kind": "mahalanobis"}')) == other
