"""A scored prompt -> its handle -> where its request was routed -> the outcome."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from indexer import Worker
from service.routing.decisions import MOST_BLOCKS, Decisions
from service.routing.errors import (
    NotRoutedError,
    OutcomeError,
    PodAmbiguousError,
    UnknownRankError,
)
from service.routing.exchange import NoPeers
from service.routing.handles import NO_PROMISES, Handles, Promise, ScoredKeys
from service.routing.outcomes import OutcomeLimits, Outcomes
from store import ForwardedOutcome, ForwardedRouting, SharedDecision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from indexer import MemoryIndex
    from service.routing.exchange import RoutingPeers

_TIDY_SECONDS = 0.1


class RoutingLimits(NamedTuple):
    """How long, and how much, is remembered."""

    memory: int
    """Bytes for handles, and as many for the blocks of decisions."""
    handle_seconds: float
    outcome_seconds: float
    """How long after its routing an outcome may be reported."""
    open_outcomes: int
    """Routings whose outcome may still be reported."""
    under_delivery: OutcomeLimits


class RecordedRouting(NamedTuple):
    """A routing, as its caller is told of it."""

    speculative_blocks: int = 0
    promised_tokens: int = 0
    forwarded: bool = False
    """Whether another replica gave the handle, and has been told."""


class CountedOutcome(NamedTuple):
    """An outcome, as its caller is told of it."""

    promised_tokens: int = 0
    forwarded: bool = False
    """As above."""


@dataclass(slots=True)
class _Routed:
    """A worker that a request was routed to."""

    promise: Promise
    is_reported: bool = False


class _OpenOutcome(NamedTuple):
    expires_at: float
    model: str
    tokens: int
    """Of the prompt."""
    workers: dict[Worker, _Routed]


class Routing:
    """Records routings and outcomes.

    Args:
        index: what workers hold, and which there are.
        limits: what may be remembered.
        on_under_delivery: told of a worker whose engine delivers too little.
        now: the time, in seconds.
    """

    def __init__(
        self,
        index: MemoryIndex,
        limits: RoutingLimits,
        on_under_delivery: Callable[[Worker], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._limits = limits
        self._now = now
        self.handles = Handles(limits.memory, limits.handle_seconds, now)
        self.decisions = Decisions(index, limits.memory, now)
        self.peers: RoutingPeers = NoPeers()
        """Who else is told of routings."""
        self.outcomes = Outcomes(limits.under_delivery, on_under_delivery, now)
        self.outcomes_dropped = 0
        """Routings whose outcome could not be awaited, because there were too many."""
        self._open: OrderedDict[bytes, _OpenOutcome] = OrderedDict()

    def record(self, handle: bytes, pod: str, rank: int | None, seconds: float) -> RecordedRouting:
        """Let the blocks of a scored prompt be speculative for a pod.

        Raises HandleUnknownError, UnknownRankError, SpeculationFullError.
        """
        if not self.handles.gave(handle):
            self.peers.tell(ForwardedRouting(handle, pod, rank, seconds))
            return RecordedRouting(forwarded=True)
        prompt = self.handles.get(handle)
        worker = self._worker_of(prompt, pod, rank)
        promise = prompt.promises.of(worker) or Promise()
        self._await_outcome(handle, prompt, worker, promise)
        if self.decisions.add(handle, prompt, worker, seconds):
            self.peers.tell(_shared(handle, prompt, worker, seconds))
        blocks = min(len(prompt.keys[prompt.block_size]), MOST_BLOCKS)
        speculative = max(0, blocks - promise.matched_blocks)
        return RecordedRouting(speculative, promise.reusable_tokens)

    def add_shared(self, shared: SharedDecision) -> None:
        """Let a decision that another replica has recorded count here. Raises RoutingError."""
        prompt = ScoredKeys(shared.model, shared.block_size, shared.keys, NO_PROMISES)
        self.decisions.add(shared.handle, prompt, shared.worker, shared.seconds)

    def _worker_of(self, prompt: ScoredKeys, pod: str, rank: int | None) -> Worker:
        if rank is None and (best := prompt.promises.best_rank(pod)) is not None:
            return best
        worker = Worker(pod, rank or 0)
        if worker in prompt.promises.workers or pod in prompt.unknown_pods:
            return worker
        ranks = self._index.ranks_of(prompt.model, pod)
        if not ranks or (rank is not None and rank not in ranks):
            raise UnknownRankError(pod, rank, prompt.model)
        return Worker(pod, ranks[0] if rank is None else rank)

    def _await_outcome(
        self, handle: bytes, prompt: ScoredKeys, worker: Worker, promise: Promise
    ) -> None:
        self._expire_outcomes()
        known = self._open.get(handle)
        if known is None:
            expires_at = self._now() + self._limits.outcome_seconds
            known = self._open[handle] = _OpenOutcome(expires_at, prompt.model, prompt.tokens, {})
            if len(self._open) > self._limits.open_outcomes:
                self._open.popitem(last=False)
                self.outcomes_dropped += 1
        known.workers.setdefault(worker, _Routed(promise))

    def report(
        self,
        handle: bytes,
        pod: str,
        rank: int | None,
        cached_tokens: int,
        by_source: Mapping[str, int],
    ) -> CountedOutcome:
        """Count what an engine found in its cache.

        pod: empty if the request was routed to one only.

        Raises HandleUnknownError, NotRoutedError, OutcomeError, PodAmbiguousError.
        """
        if not self.handles.gave(handle):
            self.peers.tell(ForwardedOutcome(handle, pod, rank, cached_tokens, by_source))
            return CountedOutcome(forwarded=True)
        self._expire_outcomes()
        known = self._open.get(handle)
        if known is None:
            self.handles.get(handle)  # raises HandleUnknownError
            raise NotRoutedError("the handle was not recorded for any pod")
        if cached_tokens > known.tokens:
            raise OutcomeError(cached_tokens, known.tokens)
        worker = _reported_worker(known, pod, rank)
        routed = known.workers[worker]
        if not routed.is_reported:
            routed.is_reported = True
            self.outcomes.add(worker, known.model, routed.promise, cached_tokens, by_source)
        return CountedOutcome(routed.promise.reusable_tokens)

    def lost(self) -> Mapping[str, int]:
        """Return what was dropped or did not get through, by why."""
        return {
            "handle_dropped": self.handles.dropped,
            "speculation_full": self.decisions.refused,
            "outcome_dropped": self.outcomes_dropped,
            **self.peers.lost,
        }

    def _expire_outcomes(self) -> None:
        now = self._now()
        while self._open and next(iter(self._open.values())).expires_at <= now:
            self._open.popitem(last=False)

    def tidy(self) -> None:
        """Forget what is over, whether anybody asks or not."""
        self.handles.expire()
        self.decisions.expire()
        self._expire_outcomes()
        self.decisions.confirm_held()


async def tidy_routing(routing: Routing) -> None:
    """Tidy a few times a second, for as long as the task lives."""
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        routing.tidy()


def _shared(handle: bytes, prompt: ScoredKeys, worker: Worker, seconds: float) -> SharedDecision:
    size = prompt.block_size
    keys = {each: some[: MOST_BLOCKS * (size // each)] for each, some in prompt.keys.items()}
    return SharedDecision(handle, worker, prompt.model, size, keys, seconds)


def _reported_worker(known: _OpenOutcome, pod: str, rank: int | None) -> Worker:
    found = [
        worker
        for worker in known.workers
        if pod in ("", worker.pod) and rank in (None, worker.rank)
    ]
    if not found:
        raise NotRoutedError("the handle was not recorded for this pod and rank")
    if len(found) > 1:
        raise PodAmbiguousError("the handle was recorded for several pods or ranks: name one")
    return found[0]
