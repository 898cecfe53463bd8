"""Writes a judgement as JSON, or as four binary columns."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from models.context import IGNORED, SCORED, STATES
from models.version.judgement import Attribution, Judgement, rows_of
from service import problems
from service.domain.champion import Champion
from service.json_value import JsonObject
from service.problems import Problem
from service.scoring.vectors import JSON, OCTETS

# The smallest p-value that a float32 column can hold without losing digits; still above 0.
_LEAST = np.float32(np.finfo(np.float32).tiny)

States = npt.NDArray[np.uint8]
EMPTY_JUDGEMENT = Judgement(np.empty(0), np.empty(0), np.empty(0), np.empty(0, bool))  # no rows

_FEW = 64  # with at most so many rows, slices of lists are faster than slices of arrays


class Reply(NamedTuple):
    """The status, the headers and the body of an HTTP answer."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers as bytes, with the type and the length of the body."""
        return [
            (b"content-type", self.content_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            *self.other_headers(),
        ]

    def other_headers(self) -> list[tuple[bytes, bytes]]:
        """Return all headers as bytes, without the type and the length of the body."""
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers]


def wants_octets(accept: str | None) -> bool:
    """Return whether an Accept header prefers the binary answer. In a tie, JSON wins."""
    if accept is None or accept in {"*/*", JSON}:
        return False
    best = {JSON: 0.0, OCTETS: 0.0}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        q = _quality(next((p[2:] for p in parameters if p.startswith("q=")), "1"))
        if media in best:
            best[media] = max(best[media], q)
        elif media in {"*/*", "application/*"}:
            best[JSON] = max(best[JSON], q)
    return best[OCTETS] > best[JSON]


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _common_fields(champion: Champion) -> JsonObject:
    judged_by: JsonObject = {"judged_by": champion.name} if champion.stands_for else {}
    return {
        "detector": champion.stands_for or champion.name,
        **judged_by,
        "version": champion.number,
        "generation": champion.generation,
        "config_revision": champion.config_revision,
        "threshold": champion.threshold.value,
        "calibration": champion.threshold.calibration,
    }


class JsonRows:
    """Writes the JSON answers to requests that were judged together.

    The parts that all answers share are written once. `reply` returns the same answer as `as_json`.
    """

    def __init__(self, champion: Champion, judgement: Judgement) -> None:
        self._champion = champion
        self._judgement = judgement
        self._head = orjson.dumps(_common_fields(champion))[:-1]

    @cached_property
    def _lists(self) -> list[list[Any]]:
        return [column.tolist() for column in self._judgement]

    def reply(self, rows: slice) -> Reply:
        """Return the answer to the request that sent these rows."""
        if rows.stop - rows.start > _FEW:
            return as_json(self._champion, rows_of(self._judgement, rows), None)
        scores, p_values, severities, verdicts = self._lists
        columns = {
            "scores": scores[rows],
            "p_values": p_values[rows],
            "severities": severities[rows],
            "is_anomaly": verdicts[rows],
        }
        return Reply(200, JSON, b"%b,%b" % (self._head, orjson.dumps(columns)[1:]))


def as_json(
    champion: Champion,
    judgement: Judgement,
    attributions: Sequence[Sequence[Attribution]] | None,
    states: States | None = None,
) -> Reply:
    """Return the columnar JSON answer.

    With `states` (n,), all values of a row that was not judged are null.
    """
    document = _common_fields(champion)
    if states is None:
        document |= judgement._asdict()
    else:
        judged = _judged_rows(states)
        whole = _over_all_rows(judgement, judged)
        verdicts = whole.is_anomaly.astype(object)
        verdicts[~judged] = None
        # The JSON writer turns NaN into null.
        document |= whole._asdict() | {"is_anomaly": verdicts.tolist()}
        document["states"] = [STATES[state] for state in states.tolist()]
    if attributions is not None:
        explained = iter([[attribution._asdict() for attribution in row] for row in attributions])
        every = [True] * len(judgement.scores) if states is None else _judged_rows(states).tolist()
        document["attributions"] = [
            next(explained) if is_explained else [] for is_explained in every
        ]
    return Reply(200, JSON, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def _judged_rows(states: States) -> npt.NDArray[np.bool_]:
    """Return which rows were judged, (n,)."""
    judged: npt.NDArray[np.bool_] = (states == SCORED) | (states == IGNORED)
    return judged


def _over_all_rows(judgement: Judgement, judged: npt.NDArray[np.bool_]) -> Judgement:
    """Return a judgement of all rows, with NaN and False for each row that was not judged."""
    n = len(judged)
    spread = Judgement(
        np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, bool)
    )
    for column, values in zip(spread, judgement, strict=True):
        column[judged] = values
    return spread


def as_octets(champion: Champion, judgement: Judgement, states: States | None = None) -> Reply:
    """Return scores, p-values and severities as little-endian float32, then verdicts as uint8.

    With `states` (n,), a row that was not judged has NaN, and the verdict 255.
    """
    verdicts = judgement.is_anomaly.astype(np.uint8)
    if states is not None:
        judged = _judged_rows(states)
        judgement = _over_all_rows(judgement, judged)
        verdicts = np.where(judged, judgement.is_anomaly, 255).astype(np.uint8)
    p = np.maximum(judgement.p_values, _LEAST)
    body = b"".join(
        (
            judgement.scores.astype("<f4").tobytes(),
            p.astype("<f4").tobytes(),
            judgement.severities.astype("<f4").tobytes(),
            verdicts.tobytes(),
        )
    )
    return Reply(
        200,
        OCTETS,
        body,
        (
            ("X-Anamnesis-Detector", champion.stands_for or champion.name),
            *((("X-Anamnesis-Judged-By", champion.name),) if champion.stands_for else ()),
            ("X-Anamnesis-Version", str(champion.number)),
            ("X-Anamnesis-Generation", str(champion.generation)),
            ("X-Anamnesis-Config-Revision", str(champion.config_revision)),
            ("X-Anamnesis-Threshold", repr(champion.threshold.value)),
            ("X-Anamnesis-Calibration", champion.threshold.calibration),
            ("X-Anamnesis-Rows", str(len(judgement.scores))),
        ),
    )


def as_problem(problem: Problem) -> Reply:
    """Return the answer that carries a problem document (RFC 9457)."""
    return Reply(
        problem.status, problems.CONTENT_TYPE, problem.to_bytes(), tuple(problem.headers.items())
    )
