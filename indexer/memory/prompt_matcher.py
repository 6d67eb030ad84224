"""Prompt -> how much each worker of an index in memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.kernel import PrefixWalk, RowTable, WorkerPlans
from indexer.memory.match import MemoryPrefixMatch, Walk
from indexer.scheme import model_scope

if TYPE_CHECKING:
    from indexer.index import PromptBlocks
    from indexer.memory.tiers import TierRegistry
    from indexer.memory.workers import WorkerRegistry


class PromptMatcher:
    """Matches prompts with the blocks of a table, for the workers of a registry."""

    def __init__(
        self, table: RowTable, tiers: TierRegistry, workers: WorkerRegistry, plans: WorkerPlans
    ) -> None:
        self._table = table
        self._tiers = tiers
        self._workers = workers
        self._walk = PrefixWalk(plans)

    def match(self, model: str, prompt: PromptBlocks) -> MemoryPrefixMatch:
        """Return how much of the prompt each worker of `model` holds.

        There is one walk per size of keys. Each covers the workers with other sizes as well, which
        hold nothing under its keys; a worker's outcome is read from the walk of its own size.
        """
        scope, weights = model_scope(model), self._tiers.weights_with(prompt.tier_weights)
        walks = {}
        for key_block_size, chunks, gap in self._workers.key_sizes(model):
            size = key_block_size or prompt.block_size
            keys = prompt.block_keys(size)
            ratio = prompt.block_size // size or 1
            walked = self._walk.walk(
                self._table.lookup.sets_of(keys, scope, gap),
                self._table.sets.holders,
                weights,
                self._workers.numbers,
                len(keys),
                (prompt.tokens - 1) // size,
                chunks,
                ratio,
            )
            walks[key_block_size] = Walk(*walked, size, ratio)
        return MemoryPrefixMatch(self._workers.pods_of(model), self._tiers.names, walks)
