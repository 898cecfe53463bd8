"""Lists are complete by default, or come in pages: newest first, detectors by name."""

from itertools import chain

import httpx
import pytest

from tests.contract.running import Running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"


async def pages(
    http: httpx.AsyncClient, path: str, listed: str, field: str, limit: int
) -> list[list]:
    """Return the content of each page until one has no `next`."""
    contents: list[list] = []
    after: dict[str, str] = {}
    while True:
        answer = await http.get(path, params={"limit": limit} | after)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        contents.append([item[field] for item in page[listed]])
        if page.get("next") is None:
            return contents
        after = {"after": page["next"]}


async def test_detectors_are_paged_by_name(api: Running) -> None:
    """Detectors are paged by name, also after the detector that `after` names was deleted."""
    for name in "cabed":
        await api.make(name)
    path = "/v1/detectors"
    assert await pages(api.http, path, "detectors", "name", 2) == [["a", "b"], ["c", "d"], ["e"]]
    await api.http.delete(f"{path}/b")
    rest = (await api.http.get(path, params={"after": "b"})).json()
    assert [detector["name"] for detector in rest["detectors"]] == ["c", "d", "e"]
    assert "next" not in (await api.http.get(path)).json()


async def test_versions_are_paged_newest_first(pump: Running, versions: Versions) -> None:
    """Versions are paged with the newest first; without pages all are listed, oldest first."""
    for _ in range(4):
        await pump.learn(versions[0])
    numbers = await pages(pump.http, f"{PUMP}/versions", "versions", "version", 2)
    assert numbers == [[5, 4], [3, 2], [1]]
    whole = (await pump.http.get(f"{PUMP}/versions")).json()
    assert [record["version"] for record in whole["versions"]] == [1, 2, 3, 4, 5]


async def test_quarantine_and_keys_are_paged_newest_first(
    pump: Running, versions: Versions
) -> None:
    """Quarantine and keys are paged with the newest first; the audit trail stays oldest first."""
    for _ in range(3):
        await pump.learn(versions[0], good=False)
    whole = (await pump.http.get(f"{PUMP}/quarantine")).json()["quarantine"]
    ids = await pages(pump.http, f"{PUMP}/quarantine", "quarantine", "id", 2)
    assert [len(page) for page in ids] == [2, 1]
    assert [*chain(*ids)] == [entry["id"] for entry in reversed(whole)]
    trail = await pages(pump.http, f"{PUMP}/audit", "audit", "seq", 2)
    assert [*chain(*trail)] == sorted([*chain(*trail)])


@pytest.mark.parametrize(
    "path", ["", "/pump/versions", "/pump/quarantine", "/pump/audit", "/pump/events"]
)
@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "99999999999999"])
async def test_a_limit_is_a_whole_number(pump: Running, path: str, limit: str) -> None:
    """`limit` is a whole number from 1 to 1000."""
    answer = await pump.http.get(f"/v1/detectors{path}", params={"limit": limit})
    assert answer.status_code == 422
    assert "`limit`" in answer.json()["detail"]


async def test_after_must_name_an_existing_entry(pump: Running) -> None:
    """`after` must name an existing entry, because otherwise the next page is unknown."""
    for path in ("versions", "quarantine"):
        answer = await pump.http.get(f"{PUMP}/{path}", params={"after": "nobody"})
        assert answer.status_code == 422
