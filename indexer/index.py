"""The contract of an index: which worker holds which block, and what its engine hashes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from indexer.cache_layout import CacheLayout
    from indexer.types import BlockKey, EngineHash, Hashes, Place, Worker, WorkerBlocks, WorkerMatch


class PromptBlocks(Protocol):
    """A prompt to be matched; `PromptKeys` makes one of tokens."""

    @property
    def tokens(self) -> int:
        """How many tokens the prompt has."""
        ...

    @property
    def block_size(self) -> int:
        """Tokens of a block of an answer."""
        ...

    @property
    def tier_weights(self) -> Mapping[str, float]:
        """Tier -> what a block in it adds to a score, where it is not what the index has."""
        ...

    def block_keys(self, block_size: int) -> array[int]:
        """Return the keys of the prompt's full blocks of `block_size` tokens, an `array('Q')`."""
        ...


class PrefixMatch(Protocol):
    """How much of one prompt each worker holds."""

    __slots__ = ()

    def ranks_of(self, pod: str) -> Sequence[WorkerMatch] | None:
        """Return the match of each of a pod's ranks, in their order; None for an unknown pod."""
        ...

    def best_of(self, pod: str) -> WorkerMatch | None:
        """Return the match of the pod's best-scored rank; None for an unknown pod.

        Of ranks that score and match alike, the first one counts.
        """
        ...


class BlockWatcher(Protocol):
    """Is told what becomes of one worker's blocks, wherever its events are applied here."""

    def on_stored(self, keys: Iterable[int]) -> None:
        """The worker has stored blocks with these keys, of the size of its own keys."""
        ...

    def on_lost(self, reason: str) -> None:
        """The worker's engine is another one (restarted), or the worker has left (pod_left)."""
        ...


class Index(Protocol):
    """Blocks and their holders. Events change them, and requests match prompts against them.

    All calls are synchronous.

    *Order.* Events of one worker must be applied in the order in which it published them; those
    of different workers may interleave in any way. `join` registers a worker.

    *Non-errors.* An unknown worker or model is no error, unless a call says otherwise: an unknown
    worker holds nothing, and an unknown model has no workers.

    *Copies* are counted per worker, place and engine hash: a block that is announced twice must be
    removed twice.

    *Engine hashes* are opaque, and each worker has its own. An engine hash keeps its meaning after
    its last copy is gone, until memory runs out, because offload tiers announce bare hashes later.

    *Sizes and groups.* A worker's keys may stand for fewer tokens than a block of an answer: see
    `CacheLayout`. Blocks in a cache group that the worker's layout does not have count for nothing.
    """

    def join(self, worker: Worker, model: str) -> None:
        """Register `worker` as serving `model`. Idempotent; another model replaces the worker."""
        ...

    def describe(self, worker: Worker, layout: CacheLayout) -> None:
        """Set how the worker's cache is divided. Before the first call, only group 0 counts.

        The worker must have joined. A change of `key_block_size` makes the worker lose all its
        blocks and the meaning of all its engine hashes. Idempotent. Cost: as `clear`.
        """
        ...

    def layout_of(self, worker: Worker) -> CacheLayout:
        """Return the layout that `describe` has set; the default one if there was no such call."""
        ...

    def store(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        keys: array[int],
        *,
        new_copies: bool = True,
    ) -> int:
        """Add one copy of each block in `place`, and learn what `hashes` mean.

        The worker must have joined. Cost: O(1) per block.

        Args:
            worker: the worker that has stored the blocks.
            place: where it has stored them.
            hashes: the engine hashes of the blocks.
            keys: our keys of the same blocks, typecode 'Q'; as many as hashes or a whole multiple.
                With a multiple each engine hash stands for that many of our blocks, in order.
            new_copies: False if blocks that the worker holds already have no further copy.

        Returns:
            How many of `hashes` have too many meanings already: a bounded number counts, for each
            worker and for all. Their blocks are not stored, or not all of them.

        Raises:
            ValueError: the keys do not spread evenly over the hashes.
        """
        ...

    def store_known(
        self,
        worker: Worker,
        place: Place,
        hashes: Hashes,
        *,
        new_copies: bool = True,
        last_blocks: int = 0,
    ) -> int:
        """Add one copy of blocks whose engine hashes this worker has announced before.

        The worker must have joined. Cost: O(1) per block.

        Args:
            worker: the worker that has stored the blocks.
            place: where it has stored them.
            hashes: the engine hashes of the blocks.
            new_copies: as for `store`.
            last_blocks: `place` has only the last so many of the blocks that a hash stands for;
                0: all of them. A group with shorter blocks than another shares its hashes.

        Returns:
            How many of `hashes` the worker has never announced. Those change nothing.
        """
        ...

    def remove(self, worker: Worker, place: Place, hashes: Hashes) -> int:
        """Remove one copy of each; return how many were not held. Those change nothing."""
        ...

    def limit_copies(
        self, worker: Worker, place: Place, hashes: Hashes, limits: Sequence[int]
    ) -> None:
        """Remove copies until at most `limits[i]` of `hashes[i]` are left, for each `i`.

        Hashes that are not held change nothing. Idempotent.
        """
        ...

    def key_of(self, worker: Worker, engine_hash: EngineHash) -> BlockKey | None:
        """Return what `engine_hash` means to `worker`; None if it has never announced it.

        The meaning is the key of the last block that the hash stands for.
        """
        ...

    def held(self, worker: Worker, keys: array[int]) -> list[int]:
        """Return those of `keys`, an `array('Q')`, whose blocks the worker holds, anywhere."""
        ...

    def clear(self, worker: Worker, tiers: Collection[str]) -> None:
        """Remove the worker's blocks in `tiers`, of all groups; its engine hashes keep meaning.

        Scores are right when this returns. The cost does not depend on the number of blocks.
        """
        ...

    def restart(self, worker: Worker, tiers: Collection[str]) -> None:
        """Do as `clear`, and forget what engine hashes mean: the engine process is a new one.

        Blocks in other tiers stay, and can be removed by the hashes under which they were stored.
        Cost: as `clear`.
        """
        ...

    def evicted(self) -> Sequence[tuple[Worker, str]]:
        """Return workers and tiers that have lost blocks to the memory bound since the last call.

        After a worker and a tier are returned, they are not returned again before the worker's
        blocks in the tier are cleared.
        """
        ...

    def leave(self, worker: Worker) -> bool:
        """Forget the worker and all it holds; False if it is unknown. Cost: as `clear`."""
        ...

    def match(self, model: str, prompt: PromptBlocks) -> PrefixMatch:
        """Return how much of the prompt each worker of `model` holds and can reuse.

        Cost: O(blocks up to the end of the longest match), plus O(workers).
        """
        ...

    def ranks_of(self, model: str, pod: str) -> Sequence[int]:
        """Return the ranks of a pod that serves `model`; empty if it does not."""
        ...

    def pods_of(self, model: str) -> Sequence[str]:
        """Return the pods that serve `model`, in the order in which they joined."""
        ...

    def models(self) -> Sequence[str]:
        """Return the models that have a worker."""
        ...

    def workers(self) -> Sequence[WorkerBlocks]:
        """Return every worker and what it holds, in the order in which they joined."""
        ...
