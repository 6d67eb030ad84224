"""The recorded routings, whose blocks count as speculative until events confirm them.

Each decision is counted by itself, so the end of one takes nothing from another.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from typing_extensions import override

from indexer import BlockWatcher
from service.routing.errors import SpeculationFullError
from service.routing.prefix_tree import PrefixTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from indexer import MemoryIndex, PromptBlocks, Worker
    from service.routing.handles import ScoredKeys

SpeculativeBlocks = dict["Worker", int]
"""Worker -> leading blocks of a prompt that a live decision brings it, for those with any."""

# What is charged: at most two nodes of the tree, with a copy of the keys.
_BYTES_OF_A_BLOCK = 24
_BYTES_OF_A_DECISION = 2000
MOST_BLOCKS = 8192
"""Of a decision."""
_NOTHING: SpeculativeBlocks = {}


@dataclass(eq=False, slots=True)
class _Decision:
    """One routing: a prompt that a worker is about to hold."""

    worker: Worker
    model: str
    keys: array[int]
    last_key: int
    """The key of the last block, in the size of the worker's own keys: once the worker has it, it
    has all of them."""
    expires_at: float = 0.0
    is_over: bool = False

    @property
    def size(self) -> int:
        """What it is charged for, in bytes."""
        return _BYTES_OF_A_DECISION + _BYTES_OF_A_BLOCK * len(self.keys)


@dataclass(eq=False, slots=True)
class _WorkerDecisions(BlockWatcher):
    """The live decisions of one worker."""

    decisions: Decisions
    by_last_key: dict[int, list[_Decision]] = field(default_factory=dict)

    @override
    def on_stored(self, keys: Iterable[int]) -> None:
        if not self.by_last_key.keys().isdisjoint(keys):
            for key in self.by_last_key.keys() & set(keys):
                self.decisions.end(self.by_last_key[key], "confirmed")

    @override
    def on_lost(self, reason: str) -> None:
        self.decisions.end(self.all(), reason)

    def all(self) -> list[_Decision]:
        """Return the worker's decisions."""
        return [decision for some in self.by_last_key.values() for decision in some]


class Decisions:
    """The live decisions.

    Args:
        index: what workers hold; it tells what confirms a decision.
        limit_bytes: what the blocks of all decisions may occupy.
        now: the time, in seconds.
    """

    def __init__(self, index: MemoryIndex, limit_bytes: int, now: Callable[[], float]) -> None:
        self.ended: Counter[str] = Counter()
        """Decisions that are over, by why: confirmed, expired, pod_left, restarted."""
        self.refused = 0
        """Decisions for which there was no memory."""
        self.bytes = 0
        """What live decisions are charged for."""
        self._index = index
        self._trees: dict[str, PrefixTree] = {}  # by model
        self._by_worker: dict[Worker, _WorkerDecisions] = {}
        self._limit_bytes = limit_bytes
        self._now = now
        self._live = 0
        self._known: dict[tuple[bytes, Worker], _Decision] = {}
        self._expiries: list[tuple[float, int, bytes, _Decision]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return self._live

    def add(self, handle: bytes, prompt: ScoredKeys, worker: Worker, seconds: float) -> bool:
        """Let the prompt's blocks be speculative for `worker`, or let it be so for longer.

        Returns whether they are: the worker may hold all of them already.

        Raises SpeculationFullError.
        """
        self.expire()
        expires_at = self._now() + seconds
        decision = self._known.get((handle, worker))
        if decision is not None and not decision.is_over:
            decision.expires_at = max(decision.expires_at, expires_at)
            return True
        decision = self._begin(prompt, worker)
        if decision is None:
            return False
        decision.expires_at = expires_at
        self._known[handle, worker] = decision
        self._await_expiry(handle, decision)
        return True

    def _await_expiry(self, handle: bytes, decision: _Decision) -> None:
        entry = (decision.expires_at, next(self._numbers), handle, decision)
        heapq.heappush(self._expiries, entry)

    def _begin(self, prompt: ScoredKeys, worker: Worker) -> _Decision | None:
        """Return a new decision; None if the worker holds all the blocks already."""
        keys = prompt.keys[prompt.block_size][:MOST_BLOCKS]
        last_key = self._last_key(prompt, worker, len(keys))
        decision = _Decision(worker, prompt.model, keys, last_key)
        if self._index.held(worker, array("Q", [decision.last_key])):
            self.ended["confirmed"] += 1
            return None
        if self.bytes + decision.size > self._limit_bytes:
            self.refused += 1
            raise SpeculationFullError(len(keys))
        self.bytes += decision.size
        self._live += 1
        self._trees.setdefault(prompt.model, PrefixTree()).add(keys, worker)
        own = self._by_worker.get(worker)
        if own is None:
            own = self._by_worker[worker] = self._index.watchers[worker] = _WorkerDecisions(self)
        own.by_last_key.setdefault(decision.last_key, []).append(decision)
        return decision

    def _last_key(self, prompt: ScoredKeys, worker: Worker, blocks: int) -> int:
        """Return the key of the last of `blocks`, in the size of the worker's own keys."""
        size = self._index.layout_of(worker).key_block_size or prompt.block_size
        if size not in prompt.keys:
            size = prompt.block_size
        return prompt.keys[size][blocks * (prompt.block_size // size) - 1]

    def match(self, model: str, prompt: PromptBlocks) -> SpeculativeBlocks:
        """Return how many leading blocks of the prompt are speculative for each worker.

        Blocks that the worker holds in fact count, too.
        """
        self.expire()
        tree = self._trees.get(model)
        return tree.match(prompt.block_keys(prompt.block_size)) if tree else _NOTHING

    def confirm_held(self) -> None:
        """End the decisions whose workers hold all of their blocks by now.

        For workers whose events are applied by another replica: their blocks come unannounced.
        """
        for worker, own in list(self._by_worker.items()):
            own.on_stored(self._index.held(worker, array("Q", own.by_last_key)))

    def expire(self) -> None:
        """End the decisions whose time is over."""
        now = self._now()
        while self._expiries and self._expiries[0][0] <= now:
            _, _, handle, decision = heapq.heappop(self._expiries)
            if decision.expires_at > now and not decision.is_over:  # it was prolonged
                self._await_expiry(handle, decision)
                continue
            self.end([decision], "expired")
            if self._known.get((handle, decision.worker)) is decision:
                del self._known[handle, decision.worker]

    def end(self, decisions: Iterable[_Decision], reason: str) -> None:
        """End decisions, and count why. Those that are over already change nothing."""
        for decision in list(decisions):
            if decision.is_over:
                continue
            decision.is_over = True
            self.ended[reason] += 1
            self.bytes -= decision.size
            self._live -= 1
            tree = self._trees[decision.model]
            tree.remove(decision.keys, decision.worker)
            if not tree:
                del self._trees[decision.model]
            self._forget(decision)
            decision.keys = array("Q")

    def _forget(self, decision: _Decision) -> None:
        own = self._by_worker[decision.worker]
        others = own.by_last_key[decision.last_key]
        others.remove(decision)
        if not others:
            del own.by_last_key[decision.last_key]
        if not own.by_last_key:
            del self._by_worker[decision.worker], self._index.watchers[decision.worker]
