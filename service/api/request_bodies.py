"""Small JSON request bodies. Errors in them name the field and never repeat its value."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import Request
from msgspec import Meta

from models.columns import MAX_DIMENSION
from service.api.middleware import lower_body_bound
from service.domain.api_key import Grant
from service.domain.detector import NAME
from service.domain.scope import LEAST_BODY_BYTES, Scope
from service.problems import Unprocessable, UnsupportedMedia
from service.scoring.request_rows import MOST_CONTEXT_ROWS
from service.scoring.text_encoding import foreign_encoding
from service.scoring.vectors import JSON, essence

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Vector = Annotated[list[float], Meta(min_length=1, max_length=MAX_DIMENSION)]

MERGE_PATCH = "application/merge-patch+json"

MOST_LABELS = 1000  # labels in one request
# Bodies without rows are parsed in the event loop, which serves nobody meanwhile. These bounds on
# their bytes limit that to 0.1 s; a config of 60,000 columns takes up to 0.8 s of CPU time.
MOST_SMALL = 256 * 1024
MOST_FEEDBACK = 8 * 2**20
MOST_CONFIG = 8 * 2**20  # 65,536 columns with names of 64 characters have 6 MiB
LONGEST_WAIT = 300  # seconds


class RetrainOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options of one retraining by hand."""

    weights: str | dict[str, float] | None = None
    wait: Annotated[float, Meta(ge=0, le=LONGEST_WAIT)] = 0


class Promote(msgspec.Struct, forbid_unknown_fields=True):
    """The version to promote, and the reason."""

    version: Count
    why: Annotated[str, Meta(max_length=200)] = ""


class Decide(msgspec.Struct, forbid_unknown_fields=True):
    """A person's decision on a quarantine entry."""

    decision: Literal["release", "discard"]


class DecideIncident(msgspec.Struct, forbid_unknown_fields=True):
    """A person's decision on an incident.

    `seen` is the verdict that the person saw before deciding. The decision is refused if the
    verdict is another one by now.
    """

    decision: Literal["dismiss", "confirm", "withdraw"]
    why: Annotated[str, Meta(max_length=500)] = ""
    seen: Literal["dismissed", "confirmed"] | msgspec.UnsetType | None = msgspec.UNSET


class Mute(msgspec.Struct, forbid_unknown_fields=True):
    """A mute: its duration in seconds, and its reason."""

    seconds: Annotated[float, Meta(gt=0, le=30 * 86_400)]
    why: Annotated[str, Meta(max_length=500)] = ""


class Revoke(msgspec.Struct, forbid_unknown_fields=True):
    """What to unlearn: a batch, or all rows that an API key has sent so far."""

    batch: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    why: Annotated[str, Meta(max_length=500)] = ""
    dry_run: bool = False
    without_champion: bool = False


class NewLabel(msgspec.Struct, forbid_unknown_fields=True):
    """A person's label of a recorded anomaly, or of a vector."""

    label: Literal["normal", "anomaly"]
    event: Annotated[str, Meta(max_length=64)] | None = None
    vector: Vector | None = None


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The labels of one request."""

    labels: Annotated[list[NewLabel], Meta(min_length=1, max_length=MOST_LABELS)]


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """The API key with which a browser logs in."""

    key: Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[\x21-\x7e]+$")]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """What a new API key shall allow."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    scopes: list[Literal["score", "ingest", "read", "label", "admin", "metrics"]]
    detectors: list[Annotated[str, Meta(pattern=f"^{NAME.pattern}$")]] | None = None
    requests_per_second: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    max_body_bytes: Annotated[int, Meta(ge=LEAST_BODY_BYTES)] | None = None

    def grant(self, secret: bytes) -> Grant:
        """Return the grant for the key `secret`."""
        return Grant.of(
            secret,
            self.name,
            frozenset(map(Scope, self.scopes)),
            detectors=None if self.detectors is None else frozenset(self.detectors),
            requests_per_second=self.requests_per_second,
            max_body_bytes=self.max_body_bytes,
        )


ContextRows = Annotated[int, Meta(ge=0, le=MOST_CONTEXT_ROWS)]


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """Rows by position (`vectors`) or by column name (`records`), one of the two.

    Every other list has one entry for each row. The first `context_rows` rows of each source are
    context: they are not judged. This type is for the OpenAPI document alone:
    `service.scoring.request_rows` reads rows.
    """

    vectors: list[list[float | None]] | msgspec.UnsetType = msgspec.UNSET
    records: list[dict[str, float | str | bool | None]] | msgspec.UnsetType = msgspec.UNSET
    timestamps: list[str | float] | msgspec.UnsetType = msgspec.UNSET
    sources: list[str] | msgspec.UnsetType = msgspec.UNSET
    ids: list[str] | msgspec.UnsetType = msgspec.UNSET
    context_rows: ContextRows | msgspec.UnsetType = msgspec.UNSET


class NormalBody(ScoreBody, forbid_unknown_fields=True):
    """Rows as in a request for scores. With `vouch` a person vouches for all of them."""

    vouch: bool | msgspec.UnsetType = msgspec.UNSET


Body = TypeVar("Body", bound=msgspec.Struct)


async def json_text(request: Request, most: int, kinds: Sequence[str] = (JSON,)) -> bytes:
    """Return the bytes of a JSON body, at most `most`.

    Raises UnsupportedMedia if the content type is none of `kinds`, TooLarge, and Unprocessable if
    the body is empty or has a field twice. An empty body does not mean all defaults: it may have
    been lost on the way.
    """
    if essence(request.headers.get("content-type")) not in kinds:
        raise UnsupportedMedia(f"Send this body as {kinds[0]}.", supported=list(kinds))
    lower_body_bound(request.scope, most)
    body = (await request.body()).strip()
    if not body:
        raise Unprocessable("The body is empty. Send `{}` for the defaults.")
    if (words := foreign_encoding(body)) is not None:
        raise Unprocessable(words)
    large = len(body) > MOST_SMALL
    if await asyncio.to_thread(_has_repeated_field, body) if large else _has_repeated_field(body):
        raise Unprocessable("An object in the body has a field twice. Send each field once.")
    return body


class _RepeatedError(Exception):
    pass


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _RepeatedError


def _has_repeated_field(body: bytes) -> bool:
    """Return whether an object in the JSON `body` has a field twice.

    Parsers keep the last of them in silence, so a part of a config or a decision would be lost.
    Returns False for a body that is not JSON: its parser reports that.
    """
    try:
        json.loads(body, object_pairs_hook=_refuse_repeated)
    except _RepeatedError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


async def read(request: Request, kind: type[Body], *, optional: bool = False) -> Body:
    """Return the request's body as a `kind`.

    If it is `optional`, a request without body and content type counts as `{}`. Raises
    UnsupportedMedia, or Unprocessable with the name of the field. msgspec's messages name types,
    bounds and our fields. The only part from the client is the name of an unknown field. It is
    left out.
    """
    most = MOST_FEEDBACK if kind is Feedback else MOST_SMALL
    if optional and "content-type" not in request.headers:
        lower_body_bound(request.scope, most)
        if not await request.body():
            return kind()
    body = await json_text(request, most)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if text.startswith("Object contains unknown field") or "Invalid enum value" in text:
            text = f"{_place_in_error(text)}the fields are {', '.join(_described_fields(kind))}"
        raise Unprocessable(f"{text}.") from None
    except msgspec.DecodeError as error:
        raise Unprocessable(f"The body is not JSON: {error}.") from None
    except (UnicodeDecodeError, RecursionError):
        raise Unprocessable("The body is not JSON.") from None


def _place_in_error(text: str) -> str:
    _, at, path = text.partition(" - at `")
    return f"At `{path.rstrip('`')}`: " if at else "Unknown field or value; "


def _described_fields(kind: Any) -> list[str]:
    fields = []
    for field in msgspec.structs.fields(kind):
        fields.append(f"`{field.name}`")
        if kind is Decide:
            fields[-1] += ' ("release" or "discard")'
        if kind is DecideIncident and field.name == "decision":
            fields[-1] += ' ("dismiss", "confirm" or "withdraw")'
        if kind is NewKey and field.name == "scopes":
            fields[-1] += f" (of {', '.join(Scope)})"
        if kind is Feedback:
            fields[-1] += ' (of `label`: "normal" or "anomaly", and `event` or `vector`)'
    return fields
