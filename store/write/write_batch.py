"""One write of one worker: to its home, and its bits to the other shards they lie in."""

from __future__ import annotations

from array import array
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indexer import StableHolderIds, TrustState, TrustStatus
from store.layout import JOURNAL_ENTRIES, block_names, pages_of, worker_name
from store.records import HandoverState, JournalEntry, WorkerRecord, pack
from store.scripts import FlushWorker, WriteBits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from indexer import CacheLayout, Changes, ReplicatedIndex
    from store.layout import Layout
    from store.scripts import Call
    from store.write.owned_worker import OwnedWorker
    from store.write.streams import Streams

_JOURNAL_BYTES = 32 * 1024**2  # of large entries; small ones may take as much again
_MIN_ENTRIES = 50
_MAX_CHANGES = 16_384  # engine hashes of a worker in one write
_COPYING = "copying"
_NO_KEYS = array("Q")


class WorkerChanges(NamedTuple):
    """What has changed of a worker in this process."""

    layout: CacheLayout
    holder_ids: StableHolderIds
    """Of all places; every scored one must have a bit."""
    changes: Changes | None
    """None if the blocks are the same."""
    status: TrustStatus
    stream: dict[str, Any] | None
    """The stream as dumped for the next owner; None if no other owner can resume it."""
    requests: int
    """`OwnedWorker.writes_requested` as of now."""


def drain_worker(index: ReplicatedIndex, streams: Streams, owned: OwnedWorker) -> WorkerChanges:
    """Take from the index what has changed of a worker, up to a limit."""
    worker, requests = owned.worker, owned.writes_requested
    changes = index.drain_changes(worker, _MAX_CHANGES)
    status, stream = streams.trust_status(worker), None
    if index.pending_count(worker):  # the next round writes the rest
        status = TrustStatus(TrustState.RECOVERING, _COPYING, as_of=status.as_of)
    else:
        stream = streams.dump(worker)
    # A copy: events may change the ids before the batch is made.
    holder_ids = (index.holder_ids_of(worker) or StableHolderIds()).copy()
    layout = index.layout_of(worker)
    return WorkerChanges(layout, holder_ids, changes, status, stream, requests)


class WriteBatch(NamedTuple):
    """The calls of one write, and what to remember once they are confirmed."""

    owned: OwnedWorker
    changes: Changes | None
    stale_keys: array[int]
    """Of blocks that lose the bits of released holder ids, see `stale_rows`."""
    record: WorkerRecord
    """As the store will have it."""
    requests: int
    """`OwnedWorker.writes_requested` as of this write."""
    other_shards: list[int]
    calls: list[Call]
    """One to the home, then one to each of `other_shards`."""

    def requeue(self, index: ReplicatedIndex) -> None:
        """Let the changes be pending again, because they may not have reached the store."""
        if self.changes is not None:
            names, keys = self.changes.names, self.changes.keys + self.stale_keys
            index.requeue(self.owned.worker, names, keys)


def make_write_batch(
    layout: Layout,
    replica: str,
    owned: OwnedWorker,
    news: WorkerChanges,
    stale_keys: array[int] = _NO_KEYS,
) -> WriteBatch:
    """Return the calls that write `news`. Retires the bits of holder ids that were released.

    stale_keys: of blocks that lose these bits, see `stale_rows`.
    """
    places = news.holder_ids.scored()
    for holder_id in [holder_id for holder_id in owned.bits if holder_id not in places]:
        owned.retired_bits[holder_id] = owned.bits.pop(holder_id)
    bits = BlockBits(owned, news.changes, stale_keys)
    home, revision = layout.home(owned.worker), owned.revision + 1
    by_shard = {home: bits}
    if layout.shards > 1:
        by_shard = bits.split_by_shard(layout)
    at_home = by_shard.pop(home, None) or BlockBits(owned, None)
    stamp = f"{owned.epoch}:{revision}"
    record = WorkerRecord(
        worker=owned.worker,
        model=owned.model,
        endpoint=owned.endpoint,
        owner=replica,
        generation=owned.generation,
        epoch=owned.epoch,
        revision=revision,
        status=news.status,
        layout=news.layout,
        places={owned.bits[holder_id]: place for holder_id, place in places.items()},
        shard_stamps={**owned.shard_stamps, **dict.fromkeys(by_shard, stamp)},
        registry=owned.registry,
        scheme=owned.scheme,
    )
    calls = [_flush(owned, news, record, at_home).at(home)]
    for shard, bits_there in by_shard.items():
        calls.append(_write_bits(owned, shard, revision, bits_there).at(shard))
    return WriteBatch(owned, news.changes, stale_keys, record, news.requests, list(by_shard), calls)


def _flush(
    owned: OwnedWorker, news: WorkerChanges, record: WorkerRecord, bits: BlockBits
) -> FlushWorker:
    entry = JournalEntry.of(record, news.holder_ids, news.changes)
    packed_entry = entry.pack()
    state = HandoverState(
        stream=news.stream,
        layout=news.layout,
        holder_ids=news.holder_ids,
        bits=owned.bits,
        retired_bits=owned.retired_bits,
        shard_stamps=record.shard_stamps,
        registry=owned.registry,
        scheme=owned.scheme,
    )
    return FlushWorker(
        worker=worker_name(owned.worker),
        epoch=owned.epoch,
        generation=owned.generation,
        revision=owned.revision,
        pages=pages_of(entry.names),
        names=entry.names.tobytes(),
        counts=entry.counts.tobytes(),
        rows=entry.rows.tobytes(),
        blocks=bits.names.tobytes(),
        masks=bits.masks.tobytes(),
        bits=bits.bits,
        stale_blocks=bits.stale_names.tobytes(),
        retired_bits=packed_bits(owned.retired_bits.values()),
        registry=owned.registry,
        state=state.pack(),
        bits_to_clear=pack([owned.registry, owned.bit_labels()]),
        worker_record=record.pack(),
        entry=packed_entry,
        entries_kept=max(_MIN_ENTRIES, min(JOURNAL_ENTRIES, _JOURNAL_BYTES // len(packed_entry))),
    )


def _write_bits(owned: OwnedWorker, shard: int, revision: int, bits: BlockBits) -> WriteBits:
    return WriteBits(
        worker=worker_name(owned.worker),
        epoch=owned.epoch,
        revision=revision,
        expected_stamps=",".join(sorted(owned.possible_stamps.get(shard, set()))),
        blocks=bits.names.tobytes(),
        masks=bits.masks.tobytes(),
        bits=bits.bits,
        stale_blocks=bits.stale_names.tobytes(),
        retired_bits=packed_bits(owned.retired_bits.values()),
        registry=owned.registry,
    )


class BlockBits:
    """The blocks of a worker that may have changed, and which of its bits each has."""

    def __init__(
        self, owned: OwnedWorker, changes: Changes | None, stale_keys: array[int] = _NO_KEYS
    ) -> None:
        self.names: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self.masks: NDArray[np.uint64] = self.names
        """For each block: mask of the positions in `bits` that are set."""
        self.bits = b""
        """Four bytes each."""
        self.stale_names = block_names(stale_keys, owned.scope)
        """Blocks that only lose retired bits."""
        if changes is not None:
            self.names = block_names(changes.keys, owned.scope)
            self.masks = np.frombuffer(changes.masks, dtype=np.uint64)
            self.bits = packed_bits(owned.bits[holder_id] for holder_id in changes.scored)

    def split_by_shard(self, layout: Layout) -> dict[int, BlockBits]:
        """Return the blocks of each shard."""
        of_names, of_stale = layout.shards_of(self.names), layout.shards_of(self.stale_names)
        return {
            int(shard): self._subset(of_names == shard, of_stale == shard)
            for shard in np.unique(np.concatenate([of_names, of_stale]))
        }

    def _subset(self, names: NDArray[np.bool_], stale_names: NDArray[np.bool_]) -> BlockBits:
        subset = copy(self)
        subset.names, subset.masks = self.names[names], self.masks[names]
        subset.stale_names = self.stale_names[stale_names]
        return subset


def packed_bits(bits: Iterable[int]) -> bytes:
    """Return bits as the scripts take them, four bytes each."""
    return np.array(list(bits), dtype="<u4").tobytes()
