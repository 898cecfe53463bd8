"""Calls that score vectors, learn vectors and label vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from service.client.answers import (
    FeedbackAnswer,
    LastRetraining,
    NormalAnswer,
    RetrainAnswer,
    ScoreAnswer,
)
from service.client.connection import sends
from service.client.encoding import SentRows, body_of, path, present
from service.client.transport import Call, as_json

_RETRAIN_WAIT_SECONDS = 300  # the longest wait that the service allows


class Vectors:
    """Scores vectors, and sends normal vectors and labels."""

    @sends
    def score(
        self,
        /,
        name: str,
        vectors: SentRows,
        version: int | None = None,
        *,
        explain: int | None = None,
        record: bool = True,
        **fields: Any,
    ) -> Call[ScoreAnswer]:
        """Score the rows of an (n, d) matrix, or records by name; NaN is a missing value.

        The answer has one entry for each row. With `version`, that version scores in place of the
        champion. `explain` is the number of contributions to return for each row. `fields` are
        further fields of the body: `timestamps`, `sources`, `ids` and `context_rows`. With
        `record=False` the request does not count for events, incidents, drift and history.
        """
        query = present(version=version, explain=explain, record=None if record else "false")
        sent = {"params": query, **body_of(vectors, fields)}
        return Call("POST", path(name, "score"), as_json(ScoreAnswer), sent)

    @sends
    def learn(
        self, /, name: str, vectors: SentRows, key: str | None = None, **fields: Any
    ) -> Call[NormalAnswer]:
        """Send the rows of an (n, d) matrix as a normal batch.

        `fields` are further fields of the body, such as `timestamps`, `sources` and `vouch`.
        `vouch=True` says that a person vouches for all rows, even for rows that alarmed.
        With a `key` (an Idempotency-Key) a repeated call stores nothing twice, so the client
        repeats a failed call. Without a `key` the client sends the call once.
        """
        sent = body_of(vectors, fields)
        if key is not None:
            sent["headers"]["idempotency-key"] = key
        return Call("POST", path(name, "normal"), as_json(NormalAnswer), sent, key is not None)

    @sends
    def retrain(
        self,
        name: str,
        wait: float = _RETRAIN_WAIT_SECONDS,
        weights: str | Mapping[str, float] | None = None,
    ) -> Call[LastRetraining | None]:
        """Retrain on the buffered vectors; `weights` hold for this run only.

        Return the outcome, or None if the retraining takes longer than `wait` seconds.
        """
        sent = {"json": {"wait": wait, **present(weights=weights)}}
        where = path(name, "retrain")
        return Call("POST", where, _outcome, sent, repeatable=False, seconds=wait + 30)

    @sends
    def feedback(
        self, name: str, labels: Sequence[Mapping[str, object]], key: str | None = None
    ) -> Call[FeedbackAnswer]:
        """Label events or vectors. A label is, for example, `{"label": "normal", "event": id}`.

        With a `key` (an Idempotency-Key) a failed call is repeated.
        """
        headers = present(**{"idempotency-key": key})
        sent = {"json": {"labels": list(labels)}, "headers": headers}
        return Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent, key is not None)


def _outcome(answer: httpx.Response) -> LastRetraining | None:
    """Return the outcome of a retraining, or None if it has not ended."""
    if answer.status_code != httpx.codes.OK:
        return None
    return as_json(RetrainAnswer)(answer)["last_retraining"]
