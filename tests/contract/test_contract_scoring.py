"""`score`: the answers of the contract."""

import numpy as np
import pytest
from running import Running

from models import Version

pytestmark = pytest.mark.anyio

PATH = "/v1/detectors/pump/score"


async def test_answer_is_columnar(pump: Running, versions: tuple[Version, Version]) -> None:
    """JSON answers hold the fields of the contract and equal the library's judgement."""
    X = np.array([[0, 0, 0], [50, 50, 50]], np.float32)
    answer = await pump.http.post(PATH, json={"vectors": X.tolist()})
    assert answer.status_code == 200
    found = answer.json()
    assert list(found) == [
        "detector", "version", "generation", "config_revision", "threshold", "calibration",
        "scores", "p_values", "severities", "is_anomaly",
    ]  # fmt: skip
    expected = versions[0].judge(X)
    assert found["scores"] == pytest.approx(expected.scores.tolist())
    assert found["p_values"] == pytest.approx(expected.p_values.tolist())
    assert found["is_anomaly"] == [False, True]
    assert (found["detector"], found["version"], found["generation"]) == ("pump", 1, 1)
    assert answer.headers["cache-control"] == "no-store"
