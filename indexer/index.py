"""The contract of an index: which worker holds which block, and what its engine hashes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.types import BlockKey, EngineHash, Hashes, Place, Worker, WorkerBlocks, WorkerMatch


class PromptBlocks(Protocol):
    """A prompt as the index is asked for it; see `PromptKeys`."""

    @property
    def tokens(self) -> int:
        """How many it has."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens of a block of the answer."""
        ...

    def at(self, block_size: int) -> array[int]:
        """Its block keys, each of so many tokens."""
        ...


class PrefixMatch(Protocol):
    """How much of one prompt each worker holds."""

    def best_of(self, pod: str) -> WorkerMatch | None:
        """The best-scored rank of `pod` (the first one of equals); None for a pod unheard of."""
        ...


class Index(Protocol):
    """Blocks and their holders, fed by events, asked by requests. All calls are synchronous.

    Events of one worker must be applied in the order it published them; those of different workers
    may interleave in any way. A worker is registered by the first call that names it with `join`.
    Unless said otherwise, naming a worker or a model the index does not know is not an error: it
    holds nothing.

    A worker's keys may stand for fewer tokens than a block of an answer has: see `CacheLayout`.
    Nothing is held by whom the layout gives no group for it.

    Copies are counted per (worker, place, engine hash): a block announced twice must be removed
    twice. Engine hashes are opaque and per worker. An engine hash keeps its meaning after its last
    copy is gone, until memory runs out, because offload tiers announce bare hashes later.
    """

    def join(self, worker: Worker, model: str) -> None:
        """Register `worker` as serving `model`. Idempotent; another model replaces the worker."""
        ...

    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        """How the worker's cache is divided; before it is said, all of group 0 counts.

        The worker must have joined. With another `key_block_size` than before it holds nothing any
        more, and its engine hashes mean nothing. Cost: as `clear`.
        """
        ...

    def layout_of(self, worker: Worker) -> CacheLayout:
        """What was said by `describe`."""
        ...

    def store(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        keys: array[int],
        *,
        new_copies: bool = True,
    ) -> None:
        """One more copy of each block in `place`; `keys` may be a whole multiple of `hashes`.

        With a multiple each engine hash stands for that many of our blocks, in order. Cost: O(1) a
        block. new_copies: False if blocks that are held already have no copy more. Raises
        ValueError if the keys do not spread evenly over the hashes.
        """
        ...

    def store_known(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        *,
        new_copies: bool = True,
        most: int = 0,
    ) -> int:
        """One more copy of blocks whose meaning this worker announced before.

        most: of the blocks that a hash stands for those that `place` has are the last so many (a
        group with shorter blocks than another has the same hashes); 0: all. Returns how many of
        `hashes` it never announced; those change nothing.
        """
        ...

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """One copy less of each; returns how many were not held (they change nothing)."""
        ...

    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, most: Sequence[int]
    ) -> None:
        """There are at most so many copies of each; those not held change nothing."""
        ...

    def key_of(self, worker: Worker, engine_hash: EngineHash) -> BlockKey | None:
        """What `engine_hash` means to `worker`: the key of its last block, None if never heard."""
        ...

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """The worker's blocks in `tiers` are gone, of all groups; its engine hashes keep meaning.

        Scores are right when this returns; the cost does not depend on the number of blocks.
        """
        ...

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """As `clear`, and engine hashes announced so far mean nothing any more.

        Blocks in other tiers stay, and can be removed by the hashes they were stored under. Cost:
        as `clear`.
        """
        ...

    def evicted(self) -> Sequence[tuple[Worker, str]]:
        """Workers that have lost blocks of a tier to the memory bound, since the last such call.

        A worker and tier that was returned is not returned again before its blocks were cleared.
        """
        ...

    def leave(self, worker: Worker) -> bool:
        """The worker never was; False if it was not known. Cost: as `clear`."""
        ...

    def match(self, model: str, prompt: PromptBlocks) -> PrefixMatch:
        """How much of the prompt each worker of `model` holds, and can reuse."""
        ...

    def pods_of(self, model: str) -> Sequence[str]:
        """The pods that serve `model`, in the order in which they joined."""
        ...

    def models(self) -> Sequence[str]:
        """The models that have a worker."""
        ...

    def workers(self) -> Sequence[WorkerBlocks]:
        """Every worker with what it holds, in the order in which they joined."""
        ...
