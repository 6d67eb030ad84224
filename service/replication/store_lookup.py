"""Answers where the index is shared: from the copy if it is fresh, from the store, or marked.

Whatever is asked, of a worker whose events are applied here this process's memory is asked: the
store has it from there. So it is of workers that the store does not know, which may have forgotten
them: their owners will tell it again.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from indexer import TrustState, TrustStatus, model_scope
from service.replication.worker_status import effective_status
from store import Lookup, LookupResult, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from indexer import MemoryPrefixMatch, PrefixMatch, PromptKeys, Worker, WorkerMatch
    from service.config import StoreSection
    from service.replication.replica import Replica

_REST_SECONDS = 0.25  # after a failure of the store nobody asks it for so long


class StoreAnswer(NamedTuple):
    """How much of a prompt each worker holds, and how far each can be trusted.

    from_copy: whether some of it is what this process has of others' workers.
    """

    pods: Collection[str]
    match: PrefixMatch
    status_of: Callable[[Worker, float], TrustStatus]
    from_copy: bool


class StoreLookup:
    """What `Score` asks besides this process's memory. lookups, failed: of the store, counted."""

    def __init__(
        self,
        replica: Replica,
        section: StoreSection,
        tier_weights: Mapping[str, float],
        stale_after: float,
    ) -> None:
        self.replica = replica
        self._index = replica.index
        self._store_lookup = Lookup(replica.store, tier_weights)
        self._section = section
        self._stale_after = stale_after
        self._rests_until = 0.0
        self._failure: StoreError | None = None
        self.lookups = 0
        self.failed = 0

    def seconds_behind(self, now: float) -> float | None:
        """Seconds that the copy may be behind, None if there is none or it was never complete."""
        return self.replica.follower.seconds_behind(now) if self._section.copy_blocks else None

    def is_fresh(self, now: float) -> bool:
        """Whether the copy can answer."""
        behind = self.seconds_behind(now)
        return behind is not None and behind <= self._section.max_lag_seconds

    async def lookup(self, model: str, prompt: PromptKeys) -> StoreAnswer | None:
        """What the store says; None if it cannot be asked and the copy has to do.

        Raises StoreError where there is no copy.
        """
        try:
            found = await self._lookup_in_store(model, prompt)
        except StoreError:
            self.failed += 1
            if self._section.copy_blocks:
                return None
            raise
        is_own = self.replica.workers.is_local
        known = self._index.workers_of(model)
        from_memory = {w for w in known if is_own(w) or w not in found.records}
        workers = sorted({*found.records, *known})
        memory = self._index.match(model, prompt)
        match = _FromBoth(workers, from_memory, memory, found.match)
        standing_of = partial(self._standing, found, from_memory)
        copied = self._section.copy_blocks and not all(map(is_own, from_memory))
        return StoreAnswer(match.pods, match, standing_of, copied)

    async def _lookup_in_store(self, model: str, prompt: PromptKeys) -> LookupResult:
        if self._failure is not None and time.monotonic() < self._rests_until:
            raise self._failure
        self.lookups += 1
        try:
            async with asyncio.timeout(self._section.timeout_seconds):
                scope, is_own = model_scope(model), self.replica.workers.is_local
                found = await self._store_lookup.match(model, scope, prompt, is_own)
        except (StoreError, TimeoutError) as error:
            failure = error if isinstance(error, StoreError) else StoreError("timeout", str(error))
            self._failure = StoreError(failure.kind, f"the store of the index fails: {failure}")
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise self._failure from error
        self._failure = None
        return found

    def _standing(
        self, found: LookupResult, from_memory: Collection[Worker], worker: Worker, now: float
    ) -> TrustStatus:
        """How much to trust what is said of a worker."""
        workers = self.replica.workers
        of = found.records.get(worker)
        if worker in from_memory:
            if self._section.copy_blocks or workers.is_local(worker):
                return workers.trust_status(worker, now)
            return TrustStatus(TrustState.RECOVERING, "not_in_store", None, None)
        if of is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands", None, None)
        doubt = "store_unsettled" if worker in found.in_flight else workers.doubt_of(of)
        silent = workers.report(worker, now).silent
        return effective_status(of.status, silent, doubt, self._stale_after)


class _FromBoth:
    """One prompt, walked over memory and over the store; see `PrefixMatch`."""

    def __init__(
        self,
        workers: Iterable[Worker],
        from_memory: Collection[Worker],
        memory: MemoryPrefixMatch,
        store: MemoryPrefixMatch,
    ) -> None:
        self.pods: dict[str, list[Worker]] = {}
        for worker in workers:
            self.pods.setdefault(worker.pod, []).append(worker)
        self._from_memory = from_memory
        self._memory = memory
        self._store = store

    def best_of(self, pod: str) -> WorkerMatch | None:
        """See `PrefixMatch`."""
        best: WorkerMatch | None = None
        for worker in self.pods.get(pod, ()):
            match = (self._memory if worker in self._from_memory else self._store).match_of(worker)
            if match is not None and (best is None or match[1:3] > best[1:3]):
                best = match
        return best
