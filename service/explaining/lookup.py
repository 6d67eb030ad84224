"""What is known of single blocks: who holds them, what hashes mean, which events touched them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from indexer import Inspection
from service.explaining.touches import RecentTouches
from service.explaining.words import some

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from indexer import Hashes, MemoryIndex, Place, Worker
    from service.explaining.asked import Turn
    from service.explaining.touches import Touch
    from service.replication import Replica

_MOST_EVENTS = 16  # of a block
_MOST_SEARCHED = 512  # workers whose last events are searched
_WORKERS_A_PAUSE = 32


class Holder(NamedTuple):
    """One place where a block is held."""

    worker: Worker
    model: str
    place: Place
    copies: int | None
    """None if they are not known."""
    owner: str
    """The replica that applies the worker's events; empty if it is this one."""


@dataclass(slots=True)
class FoundBlock:
    """What is known of one block."""

    name: int
    is_hash: bool
    """Whether the name is an engine hash, and not a block key."""
    meanings: dict[int, list[str]] = field(default_factory=dict)
    """Block key -> the pods to which the engine hash means it."""
    holders: list[Holder] = field(default_factory=list)
    events: list[Touch] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """All of it in one sentence."""
        pods = len({holder.worker.pod for holder in self.holders})
        held = f"held by {some(pods, 'pod')}" if pods else "held by nobody"
        touched = some(len(self.events), "recent event")
        if not self.is_hash:
            return f"Of this block key: {held}, and {touched} touched it."
        means = some(len(self.meanings), "block")
        return f"This engine hash means {means}: {held}, and {touched} named it."


class BlockLookups:
    """Looks single blocks up.

    Args:
        index: this process's part of the index.
        replica: knows the workers.
    """

    def __init__(self, index: MemoryIndex, replica: Replica) -> None:
        self._index = index
        self._replica = replica
        self._inspection = Inspection(index)

    async def find(
        self, workers: Sequence[tuple[Worker, str]], keys: Hashes, hashes: Hashes, turn: Turn
    ) -> list[FoundBlock]:
        """Return what is known of block keys, then of engine hashes, in their order.

        workers: those that count, with their models.
        """
        by_key = [FoundBlock(key, is_hash=False) for key in keys]
        by_hash = [FoundBlock(name, is_hash=True) for name in hashes]
        await self._find_holders(by_key, keys, dict(workers), turn)
        for number, (worker, model) in enumerate(workers):
            self._find_meanings(by_hash, worker, model, hashes)
            if number % _WORKERS_A_PAUSE == 0:
                await turn.pause()
        await self._find_events([*by_key, *by_hash], [worker for worker, _ in workers], turn)
        return [*by_key, *by_hash]

    async def _find_holders(
        self, found: Sequence[FoundBlock], keys: Hashes, workers: dict[Worker, str], turn: Turn
    ) -> None:
        for model in sorted(set(workers.values())) if keys else ():
            for block, holdings in zip(found, self._inspection.holdings(model, keys), strict=True):
                block.holders += [
                    self._holder(holding.worker, model, holding.place, None)
                    for holding in sorted(holdings)
                    if holding.worker in workers
                ]
            await turn.pause()

    def _holder(self, worker: Worker, model: str, place: Place, copies: int | None) -> Holder:
        return Holder(worker, model, place, copies, self._replica.workers.owner(worker))

    def _find_meanings(
        self, found: Sequence[FoundBlock], worker: Worker, model: str, hashes: Hashes
    ) -> None:
        for meaning in self._inspection.meanings(worker, hashes) if hashes else ():
            block = found[meaning.position]
            if meaning.place is not None:
                holder = self._holder(worker, model, meaning.place, meaning.copies)
                block.holders.append(holder)
            pods = block.meanings.setdefault(meaning.key, [])
            if worker.pod not in pods[-1:]:
                pods.append(worker.pod)

    async def _find_events(
        self, found: Collection[FoundBlock], workers: Iterable[Worker], turn: Turn
    ) -> None:
        keys = [block.name for block in found if not block.is_hash]
        streams = self._replica.listener.router.streams
        local = (streams[worker] for worker in workers if worker in streams)
        now = time.monotonic()
        for stream in islice(local, _MOST_SEARCHED):
            recent = RecentTouches(stream, now)
            await recent.resolve(self._inspection, keys, turn)
            for block in found:
                name = {block.name}
                touches = recent.of_hashes(name) if block.is_hash else recent.of_keys(name)
                if any(touch.engine_hash is not None for touch in touches.events):
                    block.events += touches.events
            await turn.pause()
        for block in found:
            block.events = sorted(block.events, key=lambda touch: touch.age)[:_MOST_EVENTS]
