"""The workers of an index, by name and by model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from indexer.memory.match import WalkedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from indexer.types import Place, Worker


@dataclass(slots=True, eq=False)
class WorkerEntry(WalkedWorker):
    """A worker as the index keeps it."""

    model: str
    scope: int
    """The model's, see `model_scope`."""
    announcer: int
    """Its announcer in the block table."""
    holders: dict[Place, int] = field(default_factory=dict)
    """Its holders in the block table."""

    def blocks_by_tier(self, held_by: Callable[[int], int]) -> dict[str, int]:
        """Count the blocks of the main groups; of several groups the one with most counts.

        held_by: holder -> how many blocks it holds.
        """
        blocks: dict[str, int] = {}
        for place, holder in self.holders.items():
            if self.plan.bits.get(place.group, 0) & self.plan.main:
                blocks[place.tier] = max(blocks.get(place.tier, 0), held_by(holder))
        return blocks

    def dump(self) -> dict[str, Any]:
        """Return the entry as `dumped_workers` reads it."""
        return {
            "worker": tuple(self.worker),
            "model": self.model,
            "number": self.number,
            "announcer": self.announcer,
            "layout": self.layout.dump(),
            "holders": [(*place, holder) for place, holder in self.holders.items()],
        }


class KeySize(NamedTuple):
    """One size of keys among those that a model's workers have."""

    tokens: int
    """Tokens of a key; 0: as many as a prompt's blocks have."""
    chunks: tuple[int, ...]
    """The lengths of the chunks that tiers load, in keys."""
    gap: int
    """Blocks in a row that nobody holds after which no worker's prefix goes on."""

    @classmethod
    def of_workers(cls, tokens: int, chunks: Collection[int]) -> KeySize:
        """Return the size for workers whose tiers load chunks of these lengths.

        A tier that loads chunks announces only the last block of each, so the blocks before it
        look as if nobody held them.
        """
        return cls(tokens, tuple(sorted(chunks)), max(chunks, default=1))


class WorkerRegistry:
    """The entries of all workers, and the numbers that walks know them by.

    Numbers of workers that have left are given out again, so that the arrays of walks stay small.
    """

    def __init__(self) -> None:
        self.numbers = 0
        """One more than the highest number ever given."""
        self._free_numbers: list[int] = []
        self.entries: dict[Worker, WorkerEntry] = {}
        """All workers that have joined. To be changed by `add` and `remove` only."""
        self._unsorted: set[str] = set()  # models whose workers are to be sorted
        self._has_unsorted_entries = False
        self._pods: dict[str, dict[str, list[WorkerEntry]]] = {}  # model -> pod -> its ranks
        self._key_sizes: dict[str, Sequence[KeySize]] = {}  # of some models

    def take_number(self) -> int:
        """Return a number for a new worker."""
        number = self._free_numbers.pop() if self._free_numbers else self.numbers
        self.numbers = max(self.numbers, number + 1)
        return number

    def add(self, entry: WorkerEntry) -> None:
        """Add a worker that is not there yet."""
        self.entries[entry.worker] = entry
        self._pods.setdefault(entry.model, {}).setdefault(entry.worker.pod, []).append(entry)
        self.forget_key_sizes(entry.model)

    def remove(self, entry: WorkerEntry) -> None:
        """Remove a worker, and free its number."""
        self._free_numbers.append(entry.number)
        self.forget_key_sizes(entry.model)
        del self.entries[entry.worker]
        pods = self._pods[entry.model]
        pods[entry.worker.pod].remove(entry)
        if not pods[entry.worker.pod]:
            del pods[entry.worker.pod]
        if not pods:
            del self._pods[entry.model]
            self._unsorted.discard(entry.model)

    def mark_unsorted(self, model: str) -> None:
        """Put all workers in the order of their names from now on; `model` has got a new one.

        They are sorted when they are read next, and not once for each worker that joins.
        """
        self._unsorted.add(model)
        self._has_unsorted_entries = True

    def _sort(self, model: str) -> None:
        self._unsorted.discard(model)
        for ranks in self._pods[model].values():
            ranks.sort(key=lambda entry: entry.worker)
        self._pods[model] = dict(sorted(self._pods[model].items()))

    def all(self) -> Iterable[WorkerEntry]:
        """Return the entries of all workers."""
        if self._has_unsorted_entries:
            self._has_unsorted_entries = False
            self.entries = dict(sorted(self.entries.items()))
        return self.entries.values()

    def models(self) -> Iterable[str]:
        """Return the models that have a worker."""
        return self._pods

    def pods_of(self, model: str) -> Mapping[str, Sequence[WorkerEntry]]:
        """Return the ranks of each pod that serves `model`."""
        if model in self._unsorted:
            self._sort(model)
        return self._pods.get(model, {})

    def key_sizes(self, model: str) -> Sequence[KeySize]:
        """Return the sizes of keys that the workers of `model` have."""
        return self._key_sizes.get(model) or self._find_key_sizes(model)

    def _find_key_sizes(self, model: str) -> Sequence[KeySize]:
        chunks: dict[int, set[int]] = {}
        for ranks in self.pods_of(model).values():
            for entry in ranks:
                chunks.setdefault(entry.key_block_size, set()).update(entry.chunks)
        sizes = [KeySize.of_workers(size, lengths) for size, lengths in chunks.items()]
        if sizes:  # requests name any model: remember only those that have a worker
            self._key_sizes[model] = sizes
        return sizes

    def forget_key_sizes(self, model: str) -> None:
        """Work the sizes of keys out again: a worker of `model` has another layout."""
        self._key_sizes.pop(model, None)

    def dump(self) -> dict[str, Any]:
        """Return the registry as `dumped_workers` reads it."""
        return {
            "numbers": self.numbers,
            "free": self._free_numbers,
            "entries": [entry.dump() for entry in self.entries.values()],
        }

    def load(self, numbers: int, free: Iterable[int], entries: Iterable[WorkerEntry]) -> None:
        """Add what was dumped to an empty registry."""
        self.numbers, self._free_numbers = numbers, list(free)
        for entry in entries:
            self.add(entry)
