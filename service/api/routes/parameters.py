"""Path and header parameters that several routes share."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Path

from service.domain.detector import NAME, PLAIN_NAME
from service.problems import BadRequest, PreconditionFailed

KEY_MAX = 255
# A proxy that compresses an answer turns its tag into a weak one, or adds the coding to it (Apache:
# `"4-gzip"`). Both are accepted, since a generation does not depend on the bytes of the answer.
_CODING = "(?:[-;:](?:br|deflate|gzip|zstd))?"
_TAG = re.compile(rf'"(\d{{1,15}}){_CODING}"')
_ANY_TAG = re.compile(rf'"([^"]*?){_CODING}"')


def idempotency_key(value: str | None) -> str | None:
    """Return the key, None if none is sent.

    Raises BadRequest if it is not 1 to 255 visible ASCII characters.
    """
    if value is None:
        return None
    if not 1 <= len(value) <= KEY_MAX or not all("!" <= char <= "~" for char in value):
        raise BadRequest(f"Idempotency-Key must be 1 to {KEY_MAX} visible ASCII characters.")
    return value


def expected_generation(if_match: str | None, generation: int) -> int | None:
    """Return the generation that the header `If-Match` asks for, None if it asks for none.

    If the header has several tags and the present `generation` is one of them, that one is
    returned. Raises PreconditionFailed if no tag is a generation.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    generations = [int(tag) for tag in _TAG.findall(if_match)]
    if not generations:
        raise PreconditionFailed("If-Match names no generation.", generation=generation)
    return generation if generation in generations else generations[0]


def check_preconditions(headers: Mapping[str, str], generation: int | None) -> None:
    """Raise PreconditionFailed unless the headers `If-Match` and `If-None-Match` hold.

    `generation` is that of the present detector, None if there is no detector.
    """
    if_match, if_none_match = headers.get("if-match"), headers.get("if-none-match", "")
    if generation is None:
        if if_match is not None:
            raise PreconditionFailed("There is no such detector, so `If-Match` matches nothing.")
        return
    if expected_generation(if_match, generation) not in {None, generation}:
        raise PreconditionFailed(
            "The generation has changed. Read the detector again, then repeat the request.",
            generation=generation,
        )
    if if_none_match.strip() == "*" or str(generation) in _TAG.findall(if_none_match):
        raise PreconditionFailed("The detector exists already.", generation=generation)


def is_known(if_none_match: str | None, tag: str) -> bool:
    """Return whether the client has what `tag` names already, by the header `If-None-Match`."""
    asked = (if_none_match or "").strip()
    return bool(tag) and (asked == "*" or tag in _ANY_TAG.findall(asked))


def _pattern(name: re.Pattern[str]) -> dict[str, str]:
    """Return a pattern for the OpenAPI document alone: the routes themselves check names."""
    return {"pattern": f"^{name.pattern}$"}


TemplateName = Annotated[
    str,
    Path(
        description="The template.", examples=["pump"], json_schema_extra={**_pattern(PLAIN_NAME)}
    ),
]
Name = Annotated[
    str,
    Path(description="The detector.", examples=["pump-7"], json_schema_extra={**_pattern(NAME)}),
]
