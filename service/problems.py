"""The errors of requests, each with its HTTP status and problem type (RFC 9457).

They need no web framework: adapters and the scoring core raise them, and the API renders them. A
detail never repeats data of the client.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from service.json_value import JsonObject

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """The service itself failed. Its log says why."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    retry_after: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str,
        *,
        row: int | None = None,
        column: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.row = row
        self.column = column
        self.headers = dict(headers or {})
        self.extra = extra
        if self.retry_after is not None:
            self.headers.setdefault("Retry-After", str(self.retry_after))

    @property
    def type(self) -> str:
        """The problem type, a URI reference relative to the service's root."""
        return f"/problems/{self.slug}"

    def to_dict(self) -> JsonObject:
        """Return the problem document; `row` and `column` appear where there is one."""
        document: JsonObject = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.row is not None:
            document["row"] = self.row
        if self.column is not None:
            document["column"] = self.column
        return document | self.extra

    def to_bytes(self) -> bytes:
        """Return the problem document as JSON."""
        return orjson.dumps(self.to_dict())


class BadRequest(Problem):
    """The request is malformed: a header, the query or the path."""

    status, slug, title = 400, "bad-request", "Bad request"


NEEDS_KEY = "This request needs an API key: send the header `Authorization: Bearer KEY`."


class Unauthenticated(Problem):
    """The request has no API key, or its key is unknown or revoked."""

    status, slug, title = 401, "unauthenticated", "Unauthenticated"

    def __init__(self, *, sent: bool) -> None:
        error = ', error="invalid_token"' if sent else ""
        super().__init__(
            "The API key is unknown or was revoked." if sent else NEEDS_KEY,
            headers={"WWW-Authenticate": f'Bearer realm="anamnesis"{error}'},
        )


class Forbidden(Problem):
    """The API key lacks a scope. The field `scope` of the problem names it."""

    status, slug, title = 403, "forbidden", "Forbidden"

    def __init__(self, scope: str, detail: str | None = None) -> None:
        challenge = f'Bearer realm="anamnesis", error="insufficient_scope", scope="{scope}"'
        super().__init__(
            detail or f"This request needs an API key with the scope {scope}.",
            headers={"WWW-Authenticate": challenge},
            scope=scope,
        )


class ForeignOrigin(Problem):
    """A page of another web origin caused the request, or its `Host` does not name this machine."""

    status, slug, title = 403, "foreign-origin", "Foreign origin"


class Unknown(Problem):
    """There is no such path, version, event, quarantine entry or key."""

    status, slug, title = 404, "not-found", "Not found"


def no_such(thing: str, listed_by: str, row: int | None = None) -> Unknown:
    """Return the problem for an id that names no `thing`. The path `listed_by` lists them."""
    return Unknown(
        f"There is no such {thing}. `GET {listed_by}` lists those that are stored.", row=row
    )


class UnknownDetector(Unknown):
    """No detector has this name, or the API key does not cover it."""

    slug, title = "unknown-detector", "Unknown detector"

    def __init__(self, detail: str = "There is no such detector.", **extra: Any) -> None:
        super().__init__(detail, **extra)


class MethodNotAllowed(Problem):
    """The path does not allow this method."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(Problem):
    """The request's head or body came too slowly. The connection is closed."""

    status, slug, title = 408, "request-timeout", "Request timeout"


class Conflict(Problem):
    """The detector's state does not allow this."""

    status, slug, title = 409, "conflict", "Conflict"


class NoVersion(Conflict):
    """The process has no version of the detector to score with. The detail says why."""

    slug, title = "no-version", "No version yet"


class Gone(Problem):
    """The artifact of the version was deleted or is damaged."""

    status, slug, title = 410, "gone", "Gone"

    def __init__(
        self, detail: str = "The version was pruned. Its artifact is no longer stored."
    ) -> None:
        super().__init__(detail)


class PreconditionFailed(Problem):
    """The generation is not the one in `If-Match`, or is one that `If-None-Match` excludes."""

    status, slug, title = 412, "precondition-failed", "Precondition failed"


class TooLarge(Problem):
    """The body is larger than the service takes."""

    status, slug, title = 413, "too-large", "Body too large"


class UnsupportedMedia(Problem):
    """The content type is one that this release does not read or write."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class Unprocessable(Problem):
    """The request is well-formed, but a value in it is not valid."""

    status, slug, title = 422, "unprocessable", "Unprocessable"


class BadVectors(Unprocessable):
    """The vectors are not valid. `row` and `column` (from zero) name the place, if there is one."""

    slug, title = "bad-vectors", "Bad vectors"


class HeadTooLarge(Problem):
    """The request line and the headers are larger than the service takes."""

    status, slug, title = 431, "head-too-large", "Request head too large"


class BufferFull(Problem):
    """The buffer is full. Retry after a retraining has learned its vectors."""

    status, slug, title, retry_after = 429, "buffer-full", "Buffer full", 10


class TooManyRequests(Problem):
    """The API key has used up its rate in this process."""

    status, slug, title, retry_after = 429, "too-many-requests", "Too many requests", 1


SILENT = "The store does not answer."


class StoreUnavailable(Problem):
    """The store does not answer. Scoring with loaded versions goes on."""

    status, slug, title, retry_after = 503, "store-unavailable", "Store unavailable", 1

    def __init__(self, detail: str = SILENT, **extra: Any) -> None:
        super().__init__(detail, **extra)


class Busy(Problem):
    """The process is at its bound of connections or of request bodies, or has too little memory."""

    status, slug, title, retry_after = 503, "busy", "Busy", 1


class Unready(Problem):
    """The process cannot serve yet or is draining."""

    status, slug, title, retry_after = 503, "unready", "Not ready", 1

    def __init__(
        self, detail: str = "The store does not answer, and no champion is in memory."
    ) -> None:
        super().__init__(detail)


def unexpected(error: BaseException) -> Problem:
    """Return the problem that answers a request which ended with `error`. The caller logs it."""
    if isinstance(error, MemoryError):
        return Busy("The process has too little memory for this request. Ask for less at once.")
    return Problem("The service failed. Its log says why.")
