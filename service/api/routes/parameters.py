"""Path and header parameters that several routes share."""

import re
from typing import Annotated

from fastapi import Path

from service.problems import BadRequest, PreconditionFailed

KEY_MAX = 255
# A proxy that compresses makes a tag weak; a generation is one whatever the bytes that carried it.
_TAG = re.compile(r'"(\d{1,15})"')


def idempotency_key(value: str | None) -> str | None:
    """Return the key when it is 1 to 255 visible ASCII characters; BadRequest otherwise."""
    if value is None:
        return None
    if not 1 <= len(value) <= KEY_MAX or not all("!" <= char <= "~" for char in value):
        raise BadRequest(f"Idempotency-Key: 1 to {KEY_MAX} visible ASCII characters.")
    return value


def expected_generation(if_match: str | None, generation: int) -> int | None:
    """Return the generation that `If-Match` asks for, None when it asks for none.

    Of several tags the present `generation`, where it is among them. Raises PreconditionFailed.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    asked = [int(tag) for tag in _TAG.findall(if_match)]
    if not asked:
        raise PreconditionFailed("If-Match names no generation.", generation=generation)
    return generation if generation in asked else asked[0]


TemplateName = Annotated[str, Path(description="The template.", examples=["pump"])]
Name = Annotated[str, Path(description="The detector.", examples=["pump-7"])]
