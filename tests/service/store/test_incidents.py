"""Dismissed patterns in the store."""

import pytest
from redis.asyncio import Redis

from service.domain.incident import DismissedPattern
from service.store.incidents import PATTERNS_KEPT, Incidents
from tests.service.stored import Stored

pytestmark = pytest.mark.anyio


def _pattern(sender: str, number: int) -> DismissedPattern:
    return DismissedPattern(f"e{sender}{number}", {"x": (0.0, 1.0)}, sender=sender)


async def test_a_sender_displaces_its_own_dismissed_patterns(stored: Stored, redis: Redis) -> None:
    """Above the bound the sender with the most patterns loses its oldest ones, others lose none."""
    await stored.make()
    incidents = Incidents(redis)
    await incidents.add_dismissed_patterns("pump", [_pattern("", 0), _pattern("operator", 0)])
    for start in (0, 500):
        flood = [_pattern("flood", start + i) for i in range(500)]
        await incidents.add_dismissed_patterns("pump", flood)
    kept = await incidents.dismissed_patterns("pump")
    assert len(kept) == PATTERNS_KEPT
    assert {p.id for p in kept if p.sender != "flood"} == {"e0", "eoperator0"}
    newest = {f"eflood{i}" for i in range(1000 - (PATTERNS_KEPT - 2), 1000)}
    assert {p.id for p in kept if p.sender == "flood"} == newest


async def test_deleted_patterns_are_noticed(stored: Stored, redis: Redis) -> None:
    """Deleting a pattern changes the number of decisions, which the worker looks at."""
    await stored.make()
    incidents = Incidents(redis)
    await incidents.add_dismissed_patterns("pump", [_pattern("a", 0), _pattern("a", 1)])
    before = await incidents.decisions("pump")
    assert await incidents.delete_patterns("pump", ["ea0", "ea7"]) == 1
    assert (await incidents.decisions("pump")).number == before.number + 1
    assert await incidents.delete_patterns("pump", ["ea0"]) == 0
    assert [p.id for p in await incidents.dismissed_patterns("pump")] == ["ea1"]
