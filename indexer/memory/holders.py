"""Gives workers their holders, the same in the block table and in the prefix walk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.kernel import RowTable, WorkerPlans
    from indexer.memory.tiers import TierRegistry
    from indexer.memory.workers import WorkerEntry
    from indexer.types import Place


class HolderAllocator:
    """Takes holders from the table, and tells the plans of the walk whose they are.

    A worker loses all it holds in a place in constant time: its holder retires, and the next
    event in that place gets a new one.
    """

    def __init__(self, table: RowTable, plans: WorkerPlans, tiers: TierRegistry) -> None:
        self._table = table
        self._plans = plans
        self._tiers = tiers

    def new_announcer(self, scope: int) -> int:
        """Return a new announcer, which counts in no score."""
        announcer = self._table.new_holder(scope, announcer=True)
        self._plans.place(announcer, -1)  # the number may have been a holder's before
        return announcer

    def holder_of(self, entry: WorkerEntry, place: Place) -> int:
        """Return a worker's holder for `place`, a new one if it has none."""
        holder = entry.holders.get(place)
        if holder is None:
            holder = entry.holders[place] = self._table.new_holder(entry.scope)
            self._place(entry, place, holder)
        return holder

    def retire(self, holder: int) -> None:
        """Forget what a holder holds, or what an announcer has announced."""
        self._plans.place(holder, -1)  # scores are right from now on; the table is swept later
        self._table.retire(holder)

    def plan(self, entry: WorkerEntry) -> None:
        """Tell the walk how the worker reuses blocks, and what its holders stand for."""
        self._plans.describe(entry.number, entry.plan, bool(entry.chunks))
        for place, holder in entry.holders.items():
            self._place(entry, place, holder)

    def _place(self, entry: WorkerEntry, place: Place, holder: int) -> None:
        """Count blocks of `holder` for the worker, if its layout has the group of `place`."""
        self._table.ranks.set_pod(holder, entry.worker.pod)
        self._plans.place(
            holder,
            entry.number,
            self._tiers.number_of(place.tier),
            entry.plan.bits.get(place.group, 0),
            entry.layout.offload_chunk(place.tier, entry.key_block_size or 1),
        )
