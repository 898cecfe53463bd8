"""Calls that carry vectors: score and teach.

Written by `make docs` from the module of the same name one folder up.
"""

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
from service.client.asynchronous.connection import AsyncConnection
from service.client.encoding import Sent, path, present, rows
from service.client.transport import Call, as_json

_RETRAIN_WAIT_SECONDS = 300  # the most that one request may ask for


class Vectors(AsyncConnection):
    """Scores vectors, and teaches what is normal."""

    async def score(
        self,
        name: str,
        vectors: Sent,
        version: int | None = None,
        *,
        explain: int | None = None,
        record: bool = True,
        **said: Any,
    ) -> ScoreAnswer:
        """Score the rows of an (n, d) matrix, NaN what was not observed, or records by name.

        The answer has an entry a row.
        `version` pins one, `explain` adds so many contributions a row. `said` may hold
        `timestamps`, `sources`, `ids` and `context_rows`, as the service has them. Without
        `record` the request is left out of events, incidents, drift and history.
        """
        query = present(version=version, explain=explain, record=None if record else "false")
        sent = {"params": query, **rows(vectors, said)}
        return await self.send(Call("POST", path(name, "score"), as_json(ScoreAnswer), sent))

    async def learn(
        self, name: str, vectors: Sent, key: str | None = None, **said: Any
    ) -> NormalAnswer:
        """Send the rows of an (n, d) matrix as a normal batch, with what is `said` of them.

        `vouch=True` says that a person vouches for them, those too that alarmed when scored.
        With a `key` (an Idempotency-Key) a repeated call stores nothing twice, so it is repeated
        when it fails; without one it is tried once.
        """
        sent = rows(vectors, said)
        if key is not None:
            sent["headers"]["idempotency-key"] = key
        call = Call("POST", path(name, "normal"), as_json(NormalAnswer), sent, key is not None)
        return await self.send(call)

    async def retrain(
        self,
        name: str,
        wait: float = _RETRAIN_WAIT_SECONDS,
        weights: str | Mapping[str, float] | None = None,
    ) -> LastRetraining | None:
        """Retrain on what is buffered, with `weights` for this one run.

        The answer is the outcome, or None when `wait` seconds are over first.
        """
        sent = {"json": {"wait": wait, **present(weights=weights)}, "timeout": wait + 30}
        return await self.send(
            Call("POST", path(name, "retrain"), _outcome, sent, repeatable=False)
        )

    async def feedback(
        self, name: str, labels: Sequence[Mapping[str, object]], key: str | None = None
    ) -> FeedbackAnswer:
        """Label recorded events or vectors: `{"label": "normal", "event": id}` each.

        With a `key` (an Idempotency-Key) the call is repeated when it fails.
        """
        headers = present(**{"idempotency-key": key})
        sent = {"json": {"labels": list(labels)}, "headers": headers}
        return await self.send(
            Call("POST", path(name, "feedback"), as_json(FeedbackAnswer), sent, key is not None)
        )


def _outcome(answer: httpx.Response) -> LastRetraining | None:
    """Return how a retraining ended, None where it has not."""
    if answer.status_code != httpx.codes.OK:
        return None
    return as_json(RetrainAnswer)(answer)["last_retraining"]
