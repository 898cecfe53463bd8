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


def test_values_far_outside_do_not_make_healthy_columns_suspect():
    """Two columns that jump out of all range are named, and what is expected of them is in range.

    A network's reconstruction beside such values grows without bound, and a healthy column then
    deviates from it.
    """
    rng = np.random.default_rng(3)
    causes = rng.normal(size=(1505, 2)) @ rng.normal(size=(2, 8))
    X = (causes + 0.3 * rng.normal(size=(1505, 8))).astype(np.float32)
    learned, strange = X[:1500], X[1500:]
    version = train(None, learned, Config(seed=0))
    strange[:, [2, 4]] += 100.0 * learned[:, [2, 4]].std(axis=0)
    for row in version.explain(strange, 2):
        assert {lead.feature for lead in row} == {"2", "4"}
        for lead in row:
            column = learned[:, int(lead.feature)]
            assert 1.2 * column.min() <= lead.expected <= 1.2 * column.max()
