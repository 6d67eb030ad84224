"""Answers prompts where the index is shared: from the copy if it is fresh, else from the store.

This process's memory answers for a worker whose events are applied here: the store has it from
there. It answers too for workers that the store has lost, until their owners have written them
again. And it answers for all if the store fails, marked as a copy that lags.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from typing_extensions import override

from indexer import PrefixMatch, TrustState, TrustStatus, model_scope
from service.replication.replica import PromptMatch
from store import Failures, Lookup, LookupResult, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from indexer import MemoryPrefixMatch, PromptKeys, ReplicatedIndex, Worker, WorkerMatch
    from service.config import StoreSection
    from service.replication.worker_status import ReplicatedWorkers
    from store import Follower, Store

_REST_SECONDS = 0.25  # after a failure the store is not asked for so long
_SLOW_SECONDS = 0.05  # a store that takes longer to answer one prompt is not asked for others
_MOST_ASKING = 2000


class StoreLookup:
    """What `Score` asks besides this process's memory."""

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        follower: Follower,
        workers: ReplicatedWorkers,
        section: StoreSection,
        tier_weights: Mapping[str, float],
    ) -> None:
        self._index = index
        self._follower = follower
        self._workers = workers
        self._lookup = Lookup(store, tier_weights)
        self._section = section
        self._rests_until = 0.0
        self._failure: StoreError | None = None
        self._asking: dict[asyncio.Task[LookupResult], float] = {}  # task -> since when
        self.failures = Failures()
        """Why the store did not answer, by kind."""
        self.lookups = 0
        """Prompts that the store was asked for."""
        self.failed = 0
        """Prompts that it could not be asked for, or did not answer."""
        self.late = 0
        """Prompts whose callers did not wait for it, by their latency budgets."""

    def seconds_behind(self, now: float) -> float | None:
        """Return how far the copy lags; None if there is none or it was never complete."""
        return self._follower.seconds_behind(now) if self._section.copy_blocks else None

    def is_copy_fresh(self, now: float) -> bool:
        """Whether the copy answers, rather than the store."""
        behind = self.seconds_behind(now)
        return behind is not None and behind <= self._section.max_lag_seconds

    async def match(
        self, model: str, prompt: PromptKeys, until: float | None = None
    ) -> PromptMatch:
        """Return how much of a prompt each worker holds.

        until: when to go on without the store, by the clock of the event loop; None: never.

        Raises StoreError if the store fails and there is no copy.
        """
        now = time.monotonic()
        if self.is_copy_fresh(now):
            return self._match_copy(model, prompt, now)
        if self._is_slow(now):
            return self._match_copy(model, prompt, now)
        try:
            async with asyncio.timeout_at(until):
                result = await self._ask_in_turn(model, prompt, now)
        except TimeoutError:
            return self._match_without_store(model, prompt)
        except StoreError:
            self.failed += 1
            if not self._section.copy_blocks:
                raise
            return self._match_copy(model, prompt, time.monotonic())
        return self._combine(model, prompt, result)

    def _match_copy(self, model: str, prompt: PromptKeys, now: float) -> PromptMatch:
        pods, match = self._index.pods_of(model), self._index.match(model, prompt)
        return PromptMatch(pods, match, self._workers.trust_status, now, self.seconds_behind(now))

    def _is_slow(self, now: float) -> bool:
        """Whether the copy answers, though it lags, because the store lets others wait already."""
        since = next(iter(self._asking.values()), now)
        return self._section.copy_blocks and now - since > _SLOW_SECONDS

    async def _ask_in_turn(self, model: str, prompt: PromptKeys, now: float) -> LookupResult:
        """Ask the store in a task of its own, which goes on when its caller waits no longer.

        So it is learned that the store hangs, however little time callers have.
        """
        if len(self._asking) >= _MOST_ASKING:
            raise StoreError("timeout", f"{_MOST_ASKING} prompts wait for the store already")
        task = asyncio.create_task(self._ask_store(model, prompt), name="store lookup")
        self._asking[task] = now
        task.add_done_callback(self._on_asked)
        return await asyncio.shield(task)

    def _on_asked(self, task: asyncio.Task[LookupResult]) -> None:
        self._asking.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever still waits is told

    def _match_without_store(self, model: str, prompt: PromptKeys) -> PromptMatch:
        """Answer what is known here, because the caller waits no longer."""
        self.late += 1
        match = self._match_copy(model, prompt, time.monotonic())
        if self._section.copy_blocks:
            return match
        return match._replace(status_of=self._late_status, is_late=True)

    def _late_status(self, worker: Worker, now: float) -> TrustStatus:
        if self._workers.is_local(worker):
            return self._workers.trust_status(worker, now)
        return TrustStatus(TrustState.RECOVERING, "store_late", None, None)

    async def _ask_store(self, model: str, prompt: PromptKeys) -> LookupResult:
        if self._failure is not None and time.monotonic() < self._rests_until:
            raise self._failure
        self.lookups += 1
        try:
            async with asyncio.timeout(self._section.timeout_seconds):
                scope, is_local = model_scope(model), self._workers.is_local
                result = await self._lookup.match(model, scope, prompt, is_local)
        except (StoreError, TimeoutError) as error:
            failure = error if isinstance(error, StoreError) else StoreError("timeout", str(error))
            self._failure = StoreError(failure.kind, f"the store of the index fails: {failure}")
            self._rests_until = time.monotonic() + _REST_SECONDS
            self.failures.record(self._failure)
            raise self._failure from error
        self._failure = None
        return result

    def _combine(self, model: str, prompt: PromptKeys, result: LookupResult) -> PromptMatch:
        """Return the store's answer, with memory's for the workers that memory knows better."""
        now, is_local = time.monotonic(), self._workers.is_local
        known = self._index.workers_of(model)
        from_memory = {w for w in known if is_local(w) or w not in result.records}
        workers = sorted({*result.records, *known})
        memory = self._index.match(model, prompt)
        match = _CombinedMatch(workers, from_memory, memory, result.match)
        uses_copy = self._section.copy_blocks and not all(map(is_local, from_memory))
        behind = self.seconds_behind(now) if uses_copy else None
        status_of = partial(self._status_of, result, from_memory)
        return PromptMatch(match.pods, match, status_of, now, behind)

    def _status_of(
        self, result: LookupResult, from_memory: Collection[Worker], worker: Worker, now: float
    ) -> TrustStatus:
        """Return how far the answer can be trusted for one worker."""
        if worker in from_memory:
            if self._section.copy_blocks or self._workers.is_local(worker):
                return self._workers.trust_status(worker, now)
            return TrustStatus(TrustState.RECOVERING, "not_in_store", None, None)
        record = result.records.get(worker)
        if record is None:
            return TrustStatus(TrustState.RECOVERING, "changing_hands", None, None)
        doubt = "store_unsettled" if worker in result.in_flight else ""
        return self._workers.remote_status(record, worker, now, doubt)


class _CombinedMatch(PrefixMatch):
    """One prompt, matched in memory and in the store."""

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

    @override
    def ranks_of(self, pod: str) -> Sequence[WorkerMatch] | None:
        found = [
            (self._memory if worker in self._from_memory else self._store).match_of(worker)
            for worker in self.pods.get(pod, ())
        ]
        return [match for match in found if match is not None] or None

    @override
    def best_of(self, pod: str) -> WorkerMatch | None:
        ranks = self.ranks_of(pod)
        return None if ranks is None else max(ranks, key=_score_and_blocks)


def _score_and_blocks(match: WorkerMatch) -> tuple[float, int]:
    return match.score, match.matched_blocks
