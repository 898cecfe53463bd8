"""The kinds of problem."""

from functools import partial

import orjson
import pytest

from service import problems
from service.problems import (
    NEEDS_KEY,
    BadVectors,
    BufferFull,
    Forbidden,
    Problem,
    StoreUnavailable,
    Unauthenticated,
)

# The arguments of problems that compose their own detail.
MADE = {
    Unauthenticated: lambda _: Unauthenticated(sent=True),
    Forbidden: partial(Forbidden, "admin"),
}
TREE = [
    kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, Problem)
]
TREE.remove(Unauthenticated)


@pytest.mark.parametrize("kind", TREE)
def test_every_problem_has_status_type_title_and_detail(kind: type[Problem]) -> None:
    """Each problem has a status, a type, a title and the given detail."""
    document = orjson.loads(MADE.get(kind, kind)("Because.").to_bytes())
    assert document["status"] == kind.status
    assert document["type"].startswith("/problems/")
    assert document["title"]
    assert document["detail"] == (
        "The API key is unknown or was revoked." if document["status"] == 401 else "Because."
    )
    assert "row" not in document


@pytest.mark.parametrize(
    ("sent", "detail"), [(False, NEEDS_KEY), (True, "The API key is unknown or was revoked.")]
)
def test_missing_and_unknown_keys_have_different_problems(sent: bool, detail: str) -> None:
    """A missing and an unknown key are 401 with a challenge; only the second is called invalid."""
    problem = Unauthenticated(sent=sent)
    assert (problem.status, problem.detail) == (401, detail)
    assert ("invalid_token" in problem.headers["WWW-Authenticate"]) == sent


def test_no_two_problems_share_a_type() -> None:
    """No two problems share a type."""
    assert len({kind.slug for kind in TREE}) == len(TREE)


def test_problems_have_row_column_and_extras() -> None:
    """Row and column are in the document if they are known, also 0, and so are extras."""
    document = BadVectors("No.", row=0, column=0, limit=3).to_dict()
    assert (document["row"], document["column"], document["limit"]) == (0, 0, 3)


def test_temporary_problems_say_when_to_try_again() -> None:
    """A temporary problem says when to try again."""
    assert int(StoreUnavailable().headers["Retry-After"]) >= 1
    assert int(BufferFull("Full.").headers["Retry-After"]) >= 1
