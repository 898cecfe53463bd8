"""The catalogue of faults: what is broken, what the service promises, and the number of tries."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from tests.faults.checker import violations
from tests.faults.load import ClientRecords
from tests.faults.stage import Stage


@dataclass(frozen=True)
class Fault:
    """One fault. `run(n)` tries it and returns what was measured, in words.

    It fails when the promise is not kept. n is a number of tries, of requests, of connections or of
    seconds: the name of the parameter and the docstring say which. It is `short` in
    `make test-all` and `long` in `make faults`.
    """

    name: str
    fault: str
    promise: str
    run: Callable[[int], Awaitable[str]]
    short: int
    long: int


FAULTS: dict[str, Fault] = {}
LONG_FORM: ContextVar[bool] = ContextVar("LONG_FORM", default=False)


def fault(
    broken: str, promise: str, *, short: int, long: int
) -> Callable[[Callable[[int], Awaitable[str]]], Callable[[int], Awaitable[str]]]:
    """Enter a function into the catalogue under its name."""

    def enter(run: Callable[[int], Awaitable[str]]) -> Callable[[int], Awaitable[str]]:
        FAULTS[run.__name__] = Fault(run.__name__, broken, promise, run, short, long)
        return run

    return enter


def within(promised: float, took: float) -> float:
    """Return the seconds that something took. The long form fails if they are more than promised.

    The short form does not, because its tests share the machine with other work.
    """
    assert took <= promised or not LONG_FORM.get(), f"{took:.1f} s, promised were {promised:g} s"
    return took


async def intact(stage: Stage, records: ClientRecords, name: str = "pump") -> None:
    """Fail unless every invariant holds."""
    violated = await violations(stage, records, name)
    assert not violated, "\n".join([*violated[:20], f"({len(violated)} violations)"])
