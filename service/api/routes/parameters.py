"""Path and header parameters that several routes share."""

from typing import Annotated

from fastapi import Path

from service.problems import BadRequest

KEY_MAX = 255


def idempotency_key(value: str | None) -> str | None:
    """Return the key when it is 1 to 255 visible ASCII characters; BadRequest otherwise."""
    if value is None:
        return None
    if not 1 <= len(value) <= KEY_MAX or not all("!" <= char <= "~" for char in value):
        raise BadRequest(f"Idempotency-Key: 1 to {KEY_MAX} visible ASCII characters.")
    return value


Name = Annotated[str, Path(description="The detector.", examples=["pump-7"])]
