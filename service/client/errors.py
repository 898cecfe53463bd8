"""Errors between client and service."""

from typing import Any


class ServiceError(Exception):
    """Base class of the errors between client and service."""


class Unreachable(ServiceError):  # noqa: N818 - it states what happened
    """Nothing answers at the address, or the connection broke."""


class Unusable(ServiceError):  # noqa: N818 - it states what is wrong
    """The address, the key or the authorities that were given cannot be used."""


class Refused(ServiceError):  # noqa: N818 - it states what happened
    """The service answered with a problem (RFC 9457): its `status`, and `detail` as the message.

    `row` and `column`, counted from zero, point into the vectors that were sent, or are None.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"status {status}")
        self.status = status
        self.problem = problem
        self.row: int | None = problem.get("row")
        self.column: int | None = problem.get("column")
        # Seconds after which the service would have the request again; None: it would not.
        self.pause: float | None = None
