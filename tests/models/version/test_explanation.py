"""Which column is named if a context derives several features of each."""

import numpy as np

from models import Config, train
from models.context import Context, derive

SHIFT = 12.0  # deviations


def test_a_step_is_attributed_to_its_column_from_the_first_row():
    """A step is attributed to its column: value and deviation are removed together."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(900) / 40)[:, None] * [2.0, 1.5, 1.0, 0.0]
    rows = wave + rng.normal(size=(900, 4)) * [0.2, 0.3, 0.3, 1.0]
    context = Context(over=30)
    features = derive(context, rows.astype(np.float32)).features[30:]
    version = train(None, features, Config(kind="mahalanobis", context=context, seed=0))
    later = wave + rng.normal(size=(900, 4)) * [0.2, 0.3, 0.3, 1.0]
    later[400:410, 3] += SHIFT
    strange = derive(context, later.astype(np.float32)).features[400:410]
    for row in version.explain(strange, 1):
        assert row[0].feature == "3"
        assert abs(row[0].value - SHIFT) < 4.0
        assert abs(row[0].expected) < 1.5
