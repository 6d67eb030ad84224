"""The workers of an index, by name and by model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from indexer.cache_layout import CacheLayout
from indexer.memory.match import WalkedWorker
from indexer.scheme import model_scope
from indexer.types import Place, Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


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

    def dump(self) -> dict[str, Any]:
        """Return the entry as `load` takes it."""
        return {
            "worker": tuple(self.worker),
            "model": self.model,
            "number": self.number,
            "announcer": self.announcer,
            "layout": self.layout.dump(),
            "holders": [(*place, holder) for place, holder in self.holders.items()],
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> WorkerEntry:
        """Return the entry that was dumped."""
        return cls(
            worker=Worker(*dumped["worker"]),
            number=dumped["number"],
            layout=CacheLayout.load(dumped["layout"]),
            model=dumped["model"],
            scope=model_scope(dumped["model"]),
            announcer=dumped["announcer"],
            holders={Place(tier, group): holder for tier, group, holder in dumped["holders"]},
        )


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

    def sort(self, added: WorkerEntry) -> None:
        """Put all workers in the order of their names, which only `added` is not in yet."""
        pods = self._pods[added.model]
        pods[added.worker.pod].sort(key=lambda entry: entry.worker)
        self._pods[added.model] = dict(sorted(pods.items()))
        self.entries = dict(sorted(self.entries.items()))

    def models(self) -> Iterable[str]:
        """Return the models that have a worker."""
        return self._pods

    def pods_of(self, model: str) -> Mapping[str, Sequence[WorkerEntry]]:
        """Return the ranks of each pod that serves `model`."""
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
        """Return the registry as `load` takes it."""
        return {
            "numbers": self.numbers,
            "free": self._free_numbers,
            "entries": [entry.dump() for entry in self.entries.values()],
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Add what was dumped to an empty registry. Other keys of `dumped` are ignored."""
        self.numbers, self._free_numbers = dumped["numbers"], list(dumped["free"])
        for entry in dumped["entries"]:
            self.add(WorkerEntry.load(entry))
