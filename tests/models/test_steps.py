"""A config whose training could go on for days is refused before anything is learned."""

import pytest

from models import Config, ConfigError, Model
from models.steps import MOST_STEPS, check_steps

ROWS = 200_000


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        (Model(epochs=10_000, batch_size=1), "proportional"),
        (Model(epochs=10_000), "proportional"),
        (Model(batch_size=1), {"w_prev": 0.5, "w_new": 0.5}),
        (Model(epochs=26, batch_size=1), "proportional"),
        (Model(epochs=100), {"w_prev": 0.99, "w_new": 0.01}),
    ],
)
def test_configs_beyond_the_bound_are_refused(model: Model, weights: object) -> None:
    """Epochs times rows over the batch size are bounded, and the message names the field."""
    with pytest.raises(ConfigError, match=f"model.epochs.*{MOST_STEPS}"):
        check_steps(Config(model=model, weights=weights), ROWS)


@pytest.mark.parametrize(
    "model",
    ["auto", Model(), Model(epochs=25, batch_size=1), Model(epochs=1000), Model(hidden=(8,))],
)
def test_configs_within_the_bound_pass(model: Model) -> None:
    """The defaults pass, and so does a config of five million steps."""
    check_steps(Config(model=model), ROWS)
    check_steps(Config(model=Model(epochs=10_000, batch_size=1)), 500)
