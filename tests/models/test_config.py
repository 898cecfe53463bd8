import sys

import pytest

from models import Config, ConfigError, Model
from models.columns import Column


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"strategy": "hebb"}, "one of replay, finetune, joint"),
        ({"kind": "forest"}, "one of vae"),
        ({"score": "distance"}, "one of auto, elbo, reconstruction"),
        ({"weights": "sometimes"}, "one of proportional, equal"),
        ({"weights": {"w_prev": 0.5, "w_new": 0.6}}, "sum to 1"),
        ({"weights": {"w_prev": 1.0, "w_new": 0.0}}, "weights.w_new"),
        ({"weights": {"half_life": 0}}, "half_life"),
        ({"weights": {}}, "proportional"),
        ({"threshold": {"fpr": 0}}, "threshold.fpr"),
        ({"threshold": {"fpr": 0.01, "value": 3}}, "one policy"),
        ({"threshold": {"labels": 1}}, "threshold.labels"),
        ({"threshold": {"guess": 1}}, "one of fpr, pot, quantile, value, labels"),
        ({"threshold": {"pot": 0.2}}, "threshold.pot"),
        ({"strategy": "replay+replay"}, "at most once"),
        ({"strategy": "replay+joint"}, "alone"),
        ({"strategy": "replay+"}, "strategy: choose one of"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 3, "features": ("a", "b")}, "2 names for dimension 3"),
        ({"features": ("a", "a")}, "distinct"),
        ({"features": ()}, "one name for each"),
        ({"seed": -1}, "seed"),
        ({"missing": "guess"}, "one of refuse"),
    ],
)
def test_an_unsupported_value_is_refused_with_the_choices(values: dict, named: str) -> None:
    """The message for an unsupported value names the field and the choices."""
    with pytest.raises(ConfigError, match=named):
        Config(**values)


@pytest.mark.parametrize(
    "values", [{"latent": 0}, {"hidden": ()}, {"dropout": 1.0}, {"epochs": -1}]
)
def test_invalid_model_options_are_refused(values: dict) -> None:
    """Model options are checked when a config is made, not when training starts."""
    with pytest.raises(ConfigError, match=r"model\."):
        Model(**values)


def test_from_dict_is_the_inverse_of_to_dict() -> None:
    """`from_dict` is the inverse of `to_dict`, and ignores fields of other releases."""
    config = Config(features=("a", "b"), model=Model(hidden=(8,)), weights={"half_life": 3.0})
    assert Config.from_dict({**config.to_dict(), "gate": "enforce"}) == config


def test_a_config_of_many_columns_is_cheap_to_write():
    """A list of detectors writes the config of each; copying every field took a second."""
    names = [f"c{number}" for number in range(1000)]
    config = Config(columns=tuple(Column(name) for name in names))
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        del frame, argument
        calls += event == "call"

    sys.setprofile(count)
    try:
        written = config.to_dict()
    finally:
        sys.setprofile(None)
    assert written["columns"] == [{"name": name, "type": "number"} for name in names]
    assert calls < 3 * len(names)
