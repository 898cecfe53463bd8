"""Signed versions: write access to the store alone cannot change the model."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from models import Version
from service.domain.retraining_due import ATTEMPTS
from service.settings import Settings
from service.signatures import Signer
from service.swap.artifacts import Artifacts
from service.swap.disk_cache import DiskCache
from service.worker.attempt import attempt
from service.worker.worker import Worker
from tests.certificates import signing_pair
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

OCTETS = {"content-type": "application/octet-stream"}
PUMP = "/v1/detectors/pump"
BOTH = {"refuse", "impute"}


async def learn(api: Running, version: Version, signer: Signer) -> int:
    """Do a worker's steps with this signer."""
    return await api.learn(version, **signer.sign("pump", version.to_bytes()))


async def failures(api: Running) -> float:
    """Return how many versions this process could not load, from its metrics."""
    page = (await api.http.get("/metrics")).text
    name = 'anamnesis_artifact_failures_total{detector="pump"} '
    return sum(float(line.removeprefix(name)) for line in page.splitlines() if name in line)


async def test_a_version_without_a_trusted_signature_is_not_served(
    store_url: str, versions: Versions, tmp_path: Path
) -> None:
    """A foreign version in the store is refused, and the signed version stays in service."""
    private, public = signing_pair(tmp_path, "ours")
    foreign, _ = signing_pair(tmp_path, "foreign")
    ours = Signer.of(Settings(signing_key_file=private))
    async with running(store_url, poll_seconds=0.1, trusted_keys_file=public) as api:
        await api.make()
        assert await learn(api, versions[0], ours) == 1
        await api.serving(1)
        for signer in (Signer(), Signer.of(Settings(signing_key_file=foreign))):
            before = await failures(api)
            number = await learn(api, versions[1], signer)

            async def failure_is_counted(before: float = before) -> bool:
                return await failures(api) > before

            await until(failure_is_counted)
            answer = await api.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
            assert answer.json()["version"] == 1
            pinned = await api.http.post(
                f"{PUMP}/score?version={number}", json={"vectors": [[0, 0, 0]]}
            )
            assert pinned.status_code == 410
            by_hand = await api.http.put(f"{PUMP}/champion", json={"version": number})
            assert by_hand.status_code == 410
            # No worker learns from it either, because the next version would then be signed.
            worker = Worker(Settings(trusted_keys_file=public), api.parts.stores.redis, store_url)
            await api.parts.stores.buffer.ingest("pump", np.zeros((40, 3), np.float32))
            for _ in range(ATTEMPTS):
                await attempt(worker.tools, await api.parts.stores.detectors.get("pump"), "asked")
            last = (await api.http.get(PUMP)).json()["last_retraining"]
            assert last["outcome"] == "failed"
            assert "no trusted key signed" in last["reasons"][0]


async def test_imports_are_signed_or_refused(
    store_url: str, versions: Versions, tmp_path: Path
) -> None:
    """A process that cannot sign an imported version refuses the import."""
    private, public = signing_pair(tmp_path, "ours")
    data = versions[0].to_bytes()
    async with running(store_url, poll_seconds=0.1, trusted_keys_file=public) as api:
        await api.make()
        refused = await api.http.post(f"{PUMP}/versions", content=data, headers=OCTETS)
        assert refused.status_code == 422
        async with running(store_url, poll_seconds=0.1, signing_key_file=private) as signing:
            taken = await signing.http.post(f"{PUMP}/versions", content=data, headers=OCTETS)
            assert taken.status_code == 201
        moved = await api.http.put(f"{PUMP}/champion", json={"version": taken.json()["version"]})
        assert moved.status_code == 200
        await api.serving(1)


async def test_a_copy_on_disk_needs_a_signature_too(
    store_url: str, versions: Versions, tmp_path: Path
) -> None:
    """Once versions must be signed, an unsigned copy on this machine's disk is not served."""
    private, public = signing_pair(tmp_path, "ours")
    ours = Signer.of(Settings(signing_key_file=private))
    folder = tmp_path / "champions"
    async with running(store_url, poll_seconds=0.1, cache_dir=folder) as api:
        await api.make("pump")
        await api.make("signed")
        assert await api.learn(versions[0]) == 1
        signature = ours.sign("signed", versions[0].to_bytes())
        assert await api.learn(versions[0], "signed", **signature) == 1
        # The copy has this option, and the signature is that of the artifact in the store.
        changed = await api.http.patch("/v1/detectors/signed", json={"missing": "impute"})
        assert changed.status_code == 200
        kept = DiskCache(folder, Artifacts(2**24))
        await until(lambda: {copy.version.config.missing for copy in kept.restore()} == BOTH)

    async with running(
        store_url, poll_seconds=0.1, cache_dir=folder, trusted_keys_file=public
    ) as api:
        gap = {"vectors": [[None, 0, 0]]}

        async def answers() -> bool:
            return (await api.http.post("/v1/detectors/signed/score", json=gap)).status_code == 200

        await until(answers)
        unsigned = await api.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
        assert unsigned.status_code == 409

    checked = DiskCache(folder, Artifacts(2**24), Signer.of(Settings(trusted_keys_file=public)))
    assert [(copy.name, copy.version.config.missing) for copy in checked.restore()] == [
        ("signed", "impute")
    ]


async def test_the_copy_of_an_earlier_version_keeps_its_signature(
    store_url: str, versions: Versions, tmp_path: Path
) -> None:
    """A version that serves again from memory, with a new option, is kept with the signed bytes."""
    private, public = signing_pair(tmp_path, "ours")
    ours, folder = Signer.of(Settings(signing_key_file=private)), tmp_path / "champions"
    settings = {"poll_seconds": 0.1, "cache_dir": folder, "trusted_keys_file": public}
    async with running(store_url, **settings) as api:
        await api.make()
        for version in versions[:2]:
            await api.serving(await learn(api, version, ours))
        changed = await api.http.patch(PUMP, json={"missing": "impute"})
        assert changed.status_code == 200
        moved = await api.http.put(f"{PUMP}/champion", json={"version": 1})
        assert moved.status_code == 200
        await api.serving(1)
        checked = DiskCache(folder, Artifacts(2**24), Signer.of(Settings(trusted_keys_file=public)))

        async def is_kept() -> bool:
            copies = await asyncio.to_thread(lambda: list(checked.restore()))
            return [(copy.number, copy.version.config.missing) for copy in copies] == [
                (1, "impute")
            ]

        await until(is_kept)
