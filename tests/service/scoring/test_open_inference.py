"""Requests of the Open Inference Protocol that are refused before they cost much time."""

import time
from collections.abc import Callable

import pytest

from service.problems import BadRequest
from service.scoring import open_inference

MIB = 2**20
TENSOR = b'{"inputs": [{"name": "vectors", "datatype": "FP32", "shape": '
BODIES = {
    "commas": b'{"inputs": [' + b"," * 8 * MIB,
    "brackets": TENSOR + b'[1, 3], "data": ' + b"[" * 8 * MIB,
    "blanks": b'{"inputs": [,' + b" " * 8 * MIB,
    "a long shape": TENSOR + b"[" + b"1," * 4 * MIB + b'1], "data": [1, 2, 3]}]}',
}


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of the fastest of three calls."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return min(seconds)


@pytest.mark.parametrize("kind", BODIES)
def test_a_malformed_body_is_refused_in_little_time(kind: str) -> None:
    """A refusal takes little time, because no other request is answered meanwhile."""
    body = BODIES[kind]

    def refused() -> None:
        with pytest.raises(BadRequest):
            open_inference.parse(body, None, None)  # type: ignore[arg-type] - no champion is asked

    assert processor_seconds(refused) < 20 * processor_seconds(lambda: body.count(b'"'))


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b" Infinity"])
def test_a_number_that_json_lacks_is_named(number: bytes) -> None:
    """NaN and Infinity are named wherever they stand; a text that looks like one is not."""
    body = TENSOR + b'[1, 3], "data": [' + b"1, " * MIB + number + b"]}]}"
    with pytest.raises(BadRequest, match="has no NaN"):
        open_inference.parse(body, None, None)  # type: ignore[arg-type] - no champion is asked
    with pytest.raises(BadRequest, match="is JSON with"):
        open_inference.parse(b'{"id": "NaN", "inputs": 1}', None, None)  # type: ignore[arg-type]
