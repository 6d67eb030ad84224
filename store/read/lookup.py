"""Looks a prompt up in the store itself: one parallel round trip, however many pods there are.

What this is for: a replica without a copy of the others' blocks (`store.copy_blocks = false`), and
one whose copy cannot answer, because the replica has just started or its copy lags. Such a replica
answers at once and exactly, instead of late or from what it does not have. A replica with a fresh
copy never asks.

The store has a bitmap for each block, with a bit for each holder, and the records say which holder
a bit stands for. On a cluster a write reaches its shards one after the other: while the stamps of
the shards differ from those in a worker's record, its bits are *in flight*, and may be those of
before or after the write. The lookup then asks again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indexer import BitColumns, BitColumnWorker
from store.errors import StoreError, decoding
from store.layout import block_names, worker_name
from store.records import pairs, unpack_record
from store.scripts import LookupBlocks
from store.store import all_succeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import MemoryPrefixMatch, PromptBlocks, Worker
    from store.records import WorkerRecord
    from store.store import Store

    ColumnsKey = tuple[str, tuple[tuple[Any, ...], ...]]

_MAX_DECODED = 65_536  # records kept decoded
_RETRIES = 10
_RETRY_SECONDS = 0.003


class LookupResult(NamedTuple):
    """What the store has of a prompt."""

    match: MemoryPrefixMatch
    pods: Sequence[str]
    """Those that serve the model, in the order of their names."""
    records: dict[Worker, WorkerRecord]
    """Of all workers that serve the model."""
    in_flight: set[Worker]
    """Workers some of whose bits may be those of another revision than their record."""


@dataclass(frozen=True)
class _Answer:
    """What one shard has answered."""

    bits: list[bytes]
    records: dict[bytes, bytes]
    applied: dict[bytes, bytes]
    taken: bytes
    """Bitmap of the bits that are allocated, at the first shard."""
    registry: str


class Lookup:
    """Looks prompts up in a store."""

    def __init__(self, store: Store, tier_weights: Mapping[str, float]) -> None:
        self._store = store
        self._tier_weights = tier_weights
        self._registry = ""
        self._key_sizes: dict[str, tuple[int, ...]] = {}
        self._decoded: dict[tuple[bytes, bytes], WorkerRecord | None] = {}
        self._columns: dict[ColumnsKey, BitColumns] = {}

    async def match(
        self,
        model: str,
        scope: int,
        prompt: PromptBlocks,
        may_be_in_flight: Callable[[Worker], bool] = lambda _: False,
    ) -> LookupResult:
        """Return how much of a prompt each worker of a model holds. Raises StoreError.

        may_be_in_flight: whether an answer may include a worker whose bits are being written.
        """
        for attempt in range(1 + _RETRIES):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS)
            registry = self._registry
            try:
                result = await self._match_once(model, scope, prompt)
            except StoreError:
                self._registry = ""  # it may be another one by now
                raise
            if result is not None and all(map(may_be_in_flight, result.in_flight)):
                break
        if result is None:
            self._registry = ""
            await self._store.lose_registry(registry)
            raise StoreError("malformed", "a bitmap has bits that no holder has")
        return result

    async def _match_once(
        self, model: str, scope: int, prompt: PromptBlocks
    ) -> LookupResult | None:
        """Ask for the prompt's blocks at every key size that the model is known to have.

        The answer may show a further key size, which takes a second round trip.

        Returns None if a bitmap has bits that are not allocated. They may be allocated just now.
        """
        asked_sizes = self._key_sizes.get(model) or (0,)
        while True:
            registry = self._registry
            bits, answers, asked_shards = await self._fetch(model, scope, prompt, asked_sizes)
            self._registry = answers[0].registry
            if not _are_allocated(bits, answers[0].taken):
                return None
            records = self._records(model, answers)
            columns = self._columns_of(model, registry, records)
            sizes = self._key_sizes[model] = tuple(columns.key_sizes)
            if set(sizes) <= set(asked_sizes):
                break
            asked_sizes = sizes
        in_flight = {
            worker
            for worker, record in records.items()
            if (record.places and record.registry != registry)
            or self._is_in_flight(record, asked_shards, answers)
        }
        with decoding("bitmap"):
            match = columns.match(prompt, bits)
        return LookupResult(match, list(columns.pods), records, in_flight)

    async def _fetch(
        self, model: str, scope: int, prompt: PromptBlocks, sizes: Sequence[int]
    ) -> tuple[dict[int, list[bytes]], list[_Answer], set[int]]:
        """Return key size -> bits of the prompt's blocks, all answers, and the blocks' shards."""
        layout = self._store.layout
        keys = [prompt.block_keys(size or prompt.block_size) for size in sizes]
        names = np.concatenate([block_names(keys_of_size, scope) for keys_of_size in keys])
        shards = layout.shards_of(names)
        calls = [
            LookupBlocks(model, names[shards == shard].tobytes(), self._registry).at(shard)
            for shard in range(layout.shards)
        ]
        answers = [_read(answer) for answer in all_succeeded(await self._store.call_all(calls))]
        all_bits = np.empty(len(names), dtype=object)
        for shard, answer in enumerate(answers):
            all_bits[shards == shard] = _objects(answer.bits)
        bits, start = {}, 0
        for size, keys_of_size in zip(sizes, keys, strict=True):
            bits[size] = all_bits[start : start + len(keys_of_size)].tolist()
            start += len(keys_of_size)
        return bits, answers, {int(shard) for shard in np.unique(shards)}

    def _is_in_flight(
        self, record: WorkerRecord, asked_shards: set[int], answers: Sequence[_Answer]
    ) -> bool:
        """Whether the bits that were read may be of another revision than the record."""
        name, home = worker_name(record.worker).encode(), self._store.layout.home(record.worker)
        if answers[home].applied.get(name) != f"{record.epoch}:{record.revision}".encode():
            return True  # both are written at once: one of them is not what the owner wrote
        for shard in asked_shards - {home}:
            applied = answers[shard].applied.get(name, b"")
            recorded = record.shard_stamps.get(shard)
            if recorded is None and applied.startswith(f"{record.epoch}:".encode()):
                return True
            if recorded is not None and applied != recorded.encode():
                return True
        return False

    def _records(self, model: str, answers: Sequence[_Answer]) -> dict[Worker, WorkerRecord]:
        if len(self._decoded) > _MAX_DECODED:
            self._decoded.clear()
        records = [self._decode(*named) for answer in answers for named in answer.records.items()]
        of_model = [record for record in records if record is not None and record.model == model]
        return {record.worker: record for record in sorted(of_model, key=lambda r: r.worker)}

    def _decode(self, name: bytes, blob: bytes) -> WorkerRecord | None:
        """Return a record; None if it is malformed, as if the store did not have the worker."""
        try:
            return self._decoded[name, blob]
        except KeyError:
            try:
                with decoding("worker record"):
                    record = unpack_record(name.decode(), blob)
            except StoreError:
                record = None  # the owner notices within a second, and writes it again
            self._decoded[name, blob] = record
            return record

    def _columns_of(
        self, model: str, registry: str, records: dict[Worker, WorkerRecord]
    ) -> BitColumns:
        """Return what the bits of one registry stand for; they are others' in another one."""
        workers = [
            BitColumnWorker(
                worker, record.layout, record.places if record.registry == registry else {}
            )
            for worker, record in records.items()
        ]
        key = (
            model,
            tuple(
                (worker, records[worker].packed_layout, *places.items())
                for worker, _, places in workers
            ),
        )
        columns = self._columns.get(key)
        if columns is None:
            self._columns = {k: kept for k, kept in self._columns.items() if k[0] != model}
            columns = self._columns[key] = BitColumns(workers, self._tier_weights)
        return columns


def _read(answer: Any) -> _Answer:
    bits, records, applied, taken, registry = answer
    return _Answer(bits, dict(pairs(records)), dict(pairs(applied)), taken, registry.decode())


def _are_allocated(bits: dict[int, list[bytes]], taken: bytes) -> bool:
    """Whether every bit that is set in a bitmap is allocated."""
    allocated = int.from_bytes(taken, "big")
    for bitmap in {bitmap for bitmaps in bits.values() for bitmap in bitmaps}:
        shift = 8 * (len(taken) - len(bitmap))
        number = int.from_bytes(bitmap, "big")
        if (number << shift if shift >= 0 else number >> -shift) & ~allocated:
            return False
        if shift < 0 and number & ((1 << -shift) - 1):
            return False
    return True


def _objects(values: list[bytes]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
