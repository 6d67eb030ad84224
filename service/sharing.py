"""Answers where the index is shared: from the copy if it is fresh, from the store, or marked."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from kvevents import Standing, State
from service.workers import judged
from store import Found, Lookup, StoreError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Mapping

    from indexer import Worker
    from service.replica import Replica
    from service.sections import StoreSection

_REST_SECONDS = 0.25  # after a failure of the store nobody asks it for so long


class SharedAnswers:
    """What `Score` asks besides this process's memory. lookups, refused: of the store, counted."""

    def __init__(
        self,
        replica: Replica,
        section: StoreSection,
        tier_weights: Mapping[str, float],
        scope_of: Callable[[str], int],
        stale_after: float,
    ) -> None:
        self.replica = replica
        self._lookup = Lookup(replica.store, tier_weights)
        self._section = section
        self._scope_of = scope_of
        self._stale_after = stale_after
        self._rests_until = 0.0
        self._failure: StoreError | None = None
        self.lookups = 0
        self.failed = 0

    def behind(self, now: float) -> float | None:
        """Seconds that the copy may be behind, None if there is none or it was never complete."""
        return self.replica.copy.behind(now) if self._section.copy_blocks else None

    def is_fresh(self, now: float) -> bool:
        """Whether the copy can answer."""
        behind = self.behind(now)
        return behind is not None and behind <= self._section.max_lag_seconds

    async def look(self, model: str, keys: array[int]) -> Found | None:
        """What the store says; None if it cannot be asked and the copy has to do.

        Raises StoreError where there is no copy.
        """
        try:
            return await self._look(model, keys)
        except StoreError:
            self.failed += 1
            if self._section.copy_blocks:
                return None
            raise

    async def _look(self, model: str, keys: array[int]) -> Found:
        if self._failure is not None and time.monotonic() < self._rests_until:
            raise self._failure
        self.lookups += 1
        try:
            async with asyncio.timeout(self._section.timeout_seconds):
                found = await self._lookup.match(model, self._scope_of(model), keys)
        except (StoreError, TimeoutError) as error:
            failure = error if isinstance(error, StoreError) else StoreError("timeout", str(error))
            self._failure = StoreError(failure.kind, f"the store of the index fails: {failure}")
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise self._failure from error
        self._failure = None
        return found

    def standing(self, found: Found, worker: Worker, now: float) -> Standing:
        """How much to trust what the store says of a worker."""
        of = found.standings.get(worker)
        if of is None:
            return Standing(State.RECOVERING, "changing_hands", None, None)
        doubt = "store_unsettled" if worker in found.unsettled else ""
        if not doubt and of.owner not in self.replica.live:
            doubt = "owner_lost"
        silent = self.replica.workers.report(worker, now).silent
        return judged(of.claim, silent, doubt, self._stale_after)
