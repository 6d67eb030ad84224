"""One write of what has changed of one worker: to its home, and bits to other shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.layout import block_names, pages_of, worker_name
from store.records import HandoverState, JournalEntry, WorkerRecord, pack
from store.server import Call

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer import CacheLayout, Changes, StableHolderIds, TrustStatus, Worker
    from store.layout import Layout

JOURNAL_ENTRIES = 2000
_JOURNAL_BYTES = 32 * 1024**2  # about as much again may be in small entries
_FEWEST_ENTRIES = 50


@dataclass
class OwnedWorker:
    """A worker as the store has it. scheme: of its block keys.

    slots: of seats; retired: of seats that were left, with bits to be cleared. vector: shard ->
    what was written there last. applied: shard -> what may have been. registry: that slots are of.
    unsure: the last write may have come through. afresh: all is to be written again. told,
    standing: as written last.
    """

    worker: Worker
    model: str
    scope: int
    endpoint: str
    scheme: str = ""
    epoch: int = 0
    generation: str = ""
    revision: int = 0
    bits: dict[int, int] = field(default_factory=dict)
    retired_bits: dict[int, int] = field(default_factory=dict)
    shard_stamps: dict[int, str] = field(default_factory=dict)
    possible_stamps: dict[int, set[str]] = field(default_factory=dict)
    registry: str = ""
    last_written: TrustStatus | None = None
    record: WorkerRecord | None = None
    in_doubt: bool = False
    needs_rewrite: bool = False

    def bit_label(self, seat: int) -> str:
        """What a seat is called when it comes to slots."""
        return f"{self.generation}:{seat}"

    def bit_labels(self) -> dict[str, int]:
        """Label -> slot of all that have bits."""
        return {
            self.bit_label(seat): slot for seat, slot in {**self.bits, **self.retired_bits}.items()
        }


class WriteBatch(NamedTuple):
    """A write under way. calls: one to the home, then one to each shard that is `touched` besides.

    standing: of the worker, as it will have been told.
    """

    worker: OwnedWorker
    changes: Changes | None
    record: WorkerRecord
    other_shards: list[int]
    calls: list[Call]


def make_write_batch(
    layout: Layout,
    replica: str,
    of: OwnedWorker,
    cache: CacheLayout,
    seats: StableHolderIds,
    changes: Changes | None,
    status: TrustStatus,
    dump: dict[str, Any] | None,
) -> WriteBatch:
    """The calls that write `changes`, with how far the worker's stream has got.

    cache: how the worker's is divided. All its seats must have slots. Slots of seats that were left
    are retired here.
    """
    places = seats.scored()
    for seat in [seat for seat in of.bits if seat not in places]:
        of.retired_bits[seat] = of.bits.pop(seat)
    bits = BlockBits(of, changes)
    home, now = layout.home(of.worker), of.revision + 1
    parts = bits.split_by_shard(layout.shards_of(bits.names)) if layout.shards > 1 else {home: bits}
    here = parts.pop(home, None) or BlockBits(of, None)
    stamp = f"{of.epoch}:{now}"
    vector = {**of.shard_stamps, **dict.fromkeys(parts, stamp)}
    standing = WorkerRecord(
        worker=of.worker,
        model=of.model,
        endpoint=of.endpoint,
        owner=replica,
        generation=of.generation,
        epoch=of.epoch,
        revision=now,
        status=status,
        layout=cache,
        places={of.bits[seat]: place for seat, place in places.items()},
        shard_stamps=vector,
        registry=of.registry,
        scheme=of.scheme,
    )
    entry = JournalEntry.of(standing, seats, changes)
    name, packed_entry = worker_name(of.worker), entry.pack()
    kept = _JOURNAL_BYTES // len(packed_entry)
    arguments = (
        (name, of.epoch, of.revision),
        (pages_of(entry.names), entry.names.tobytes(), entry.counts.tobytes()),
        (entry.rows.tobytes(), *here.arguments()),
        (
            HandoverState(
                dump, cache, seats, of.bits, of.retired_bits, vector, of.registry, of.scheme
            ).pack(),
        ),
        (pack([of.registry, of.bit_labels()]),),
        (standing.pack(), packed_entry),
        (max(_FEWEST_ENTRIES, min(JOURNAL_ENTRIES, kept)), of.registry),
    )
    calls = [Call("flush", home, tuple(each for some in arguments for each in some))]
    for shard, there in parts.items():
        acceptable = ",".join(sorted(of.possible_stamps.get(shard, set())))
        bits_of = (name, of.epoch, now, acceptable, *there.arguments(), of.registry)
        calls.append(Call("bits", shard, bits_of))
    return WriteBatch(of, changes, standing, list(parts), calls)


class BlockBits:
    """Blocks of a worker by name, and which of its slots hold them."""

    def __init__(self, of: OwnedWorker, changes: Changes | None) -> None:
        self._worker = of
        self.names: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._masks = self.names
        self._bits = b""
        if changes is not None:
            self.names = block_names(changes.keys, of.scope)
            self._masks = np.frombuffer(changes.masks, dtype=np.uint64)
            slots = [of.bits[seat] for seat in changes.scored]
            self._bits = np.array(slots, dtype="<u4").tobytes()

    def split_by_shard(self, shards: NDArray[np.uint64]) -> dict[int, BlockBits]:
        """The same, apart."""
        found = {}
        for shard in np.unique(shards):
            part = BlockBits(self._worker, None)
            part.names, part._masks = self.names[shards == shard], self._masks[shards == shard]
            part._bits = self._bits
            found[int(shard)] = part
        return found

    def arguments(self) -> tuple[bytes, bytes, bytes, bytes]:
        """As the scripts take them."""
        retired = np.array(list(self._worker.retired_bits.values()), dtype="<u4")
        return self.names.tobytes(), self._masks.tobytes(), self._bits, retired.tobytes()
