"""Sessions of browsers."""

from dataclasses import replace

from service.domain.api_key import Grant
from service.domain.scope import Scope
from service.domain.session import SECONDS, csrf, holder, is_valid, issue, name

GRANT = Grant.of(b"x" * 40, "ada", frozenset({Scope.READ}))
OTHER = Grant.of(b"y" * 40, "bob", frozenset({Scope.READ}))


def test_a_cookie_is_valid_until_its_time_is_over():
    """A cookie is valid for its key until its time is over, and for no other key."""
    cookie = issue(GRANT, 1000.0)
    assert holder(cookie) == GRANT.id
    assert is_valid(cookie, GRANT, 1000.0 + SECONDS - 1)
    assert not is_valid(cookie, GRANT, 1000.0 + SECONDS)
    assert not is_valid(cookie, OTHER, 1000.0)


def test_a_changed_cookie_is_no_session():
    """A cookie with a changed character, a longer life or another key's name is invalid."""
    cookie = issue(GRANT, 1000.0)
    for place, char in enumerate(cookie):
        changed = cookie[:place] + ("0" if char != "0" else "1") + cookie[place + 1 :]
        assert not is_valid(changed, GRANT, 1000.0)
    assert not is_valid(cookie, replace(GRANT, digest=b"z" * 32), 1000.0)
    for odd in ("", ".", "..", "a.b.c", "é.1.x", "x" * 10_000):
        assert not is_valid(odd, GRANT, 0.0)
    assert holder("x" * 10_000) is None
    assert holder("a.b") is None
    assert holder("a.1.signature") is None, "a session of an earlier release has no name"


def test_each_session_has_its_own_name():
    """Two sessions of a key that begin in the same second have different names."""
    first, two = issue(GRANT, 1000.0), issue(GRANT, 1000.0)
    assert name(first) != name(two)
    assert len(name(first)) == 16


def test_the_csrf_token_belongs_to_one_session():
    """The CSRF token differs by session and key, and is not the cookie."""
    first, two = issue(GRANT, 1000.0), issue(GRANT, 2000.0)
    assert len({csrf(first, GRANT), csrf(two, GRANT), csrf(first, OTHER), first}) == 4
