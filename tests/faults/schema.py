"""Requests generated from the OpenAPI document, valid and invalid ones, on every route."""

import asyncio
from collections import Counter

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase

from tests.faults.catalogue import fault
from tests.faults.stores import serving

_SETTINGS = hypothesis.settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@fault("requests made up from the OpenAPI", "no undocumented 5xx", short=200, long=20_000)
async def schema_fuzzed(runs: int) -> str:
    """Generate `runs` requests for every operation that the service documents."""
    async with serving() as (stage, _, __):
        statuses, operations = await asyncio.to_thread(
            _statuses_of_all_operations, stage.port, runs
        )
        await stage.ready()
    counted = ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items()))
    return f"{operations} operations: {counted}; 0 undocumented 5xx"


def _statuses_of_all_operations(port: int, runs: int) -> tuple[Counter[int], int]:
    """Return the number of answers with each status, and the number of operations."""
    url = f"http://127.0.0.1:{port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    statuses: Counter[int] = Counter()
    # The first API key closes the service to requests without a key, so it is made last.
    operations.sort(
        key=lambda operation: (operation.method, operation.path) == ("post", "/v1/keys")
    )
    share = max(1, runs // len(operations))
    for operation in operations:
        # The stream of events does not end, so that each request for it is read until the timeout.
        examples = min(share, 3) if operation.path == "/v1/stream" else share
        settings = hypothesis.settings(_SETTINGS, max_examples=examples)

        @settings
        @hypothesis.given(case=operation.as_strategy(), existing=hypothesis.strategies.booleans())
        def ask(case: schemathesis.Case, existing: bool) -> None:
            if existing and "name" in case.path_parameters and case.method != "DELETE":
                case.path_parameters["name"] = "pump"
            answer = case.call(base_url=url, timeout=10)
            statuses[answer.status_code] += 1
            refused = answer.status_code == 503 and "retry-after" in answer.headers
            assert refused or answer.status_code < 500, (case.as_curl_command(), answer.text)

        ask()
    return statuses, len(operations)
