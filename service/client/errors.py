"""The errors that a client raises."""

from typing import Any


class ServiceError(Exception):
    """Base class of the errors that a client raises."""


class Unreachable(ServiceError):  # noqa: N818 - it states what happened
    """No service answers at the address, or the connection broke."""


class Unusable(ServiceError):  # noqa: N818 - it states what is wrong
    """The address, the API key, the file of authorities or an argument of a call is not valid."""


class Refused(ServiceError):  # noqa: N818 - it states what happened
    """The service answered with a problem (RFC 9457): its `status`, and `detail` as the message.

    `row` and `column`, counted from zero, are the place of the error in the vectors, or None.
    """

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"status {status}")
        self.status = status
        self.problem = problem
        self.row: int | None = problem.get("row")
        self.column: int | None = problem.get("column")
        # Seconds to wait before the request is repeated; None: do not repeat it.
        self.pause: float | None = None
