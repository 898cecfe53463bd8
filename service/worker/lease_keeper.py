"""Keeps the lease of a retraining while it runs: renews it, and shows the progress."""

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any

from service.domain.experience import Experience
from service.problems import StoreUnavailable
from service.store.adapters import Stores
from service.store.leases import Lease
from service.store.lua import Fenced
from service.store.retrainings import TrainingProgress

_SHOWN_SECONDS = 5.0  # how long an entry of the due index shows the retraining as running
_KEEP_SECONDS = 0.5  # between two renewals of the lease and writes of the progress


class LeaseKeeper:
    """The latest `lease` of a retraining, and its `progress`, which is written to the store.

    While the outcome is `settling`, the lease is renewed and nothing else is checked or written.
    """

    def __init__(self, stores: Stores, lease: Lease) -> None:
        self._stores = stores
        self.lease = lease
        self.progress = TrainingProgress(0.0)
        self.settling = False

    async def while_kept(self, experience: Experience, work: Coroutine[Any, Any, bool]) -> bool:
        """Return the result of `work`. Cancel it and raise Fenced once its result is useless."""
        working = asyncio.create_task(work)
        keeping = asyncio.create_task(self._keep(experience))
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                keeping.result()
            return await working
        finally:
            working.cancel()
            keeping.cancel()
            await asyncio.gather(working, keeping, return_exceptions=True)

    async def _keep(self, experience: Experience) -> None:
        """Renew the lease and write the progress again and again. Ends only by raising Fenced."""
        written, shown_at = self.progress, -math.inf
        shown_for = max(self.lease.seconds, _SHOWN_SECONDS)
        while True:
            if time.monotonic() - shown_at > shown_for / 2:
                shown_at = time.monotonic()
                await self._stores.due.begin(self.lease.name, shown_for)
            await asyncio.sleep(min(_KEEP_SECONDS, self.lease.seconds / 3))
            try:
                renewed = await self._stores.leases.renew(self.lease)
                if renewed is None:
                    raise Fenced("the lease is lost")
                self.lease = renewed
                if self.settling:
                    continue
                await self._check_still_valid(experience)
                if written != self.progress:
                    written = self.progress
                    await self._stores.retrainings.progress(self.lease, written)
            except StoreUnavailable:
                if self.lease.expired:
                    raise Fenced("the lease ran out while the store was away") from None

    async def _check_still_valid(self, experience: Experience) -> None:
        """Raise Fenced if the store would refuse the promotion."""
        name = experience.name
        pointer = (await self._stores.detectors.poll([name])).get(name)
        if pointer is None or pointer.uid != experience.uid:
            raise Fenced("the detector was deleted")
        # The outcome may have begun to settle during the poll: then it moved the champion itself.
        if pointer.generation != experience.generation and not self.settling:
            raise Fenced("the champion moved")
