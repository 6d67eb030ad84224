"""A prompt asked of the store itself: one parallel round trip, whatever the number of pods.

On a cluster a write reaches its shards one after the other; who reads in between asks again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indexer import BitColumns, BitColumnWorker
from store.errors import StoreError
from store.layout import block_names, worker_name
from store.records import WorkerRecord
from store.server import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import MemoryPrefixMatch, PromptBlocks, Worker
    from store.store import Store

_MOST_DECODED = 65_536
_MORE_TRIES = 10
_SETTLING_SECONDS = 0.003


class LookupResult(NamedTuple):
    """What the store says of a prompt. pods: that serve the model, in the order of their names.

    unsettled: workers whose bits are being written: theirs may be of before or after.
    """

    match: MemoryPrefixMatch
    pods: Sequence[str]
    records: dict[Worker, WorkerRecord]
    in_flight: set[Worker]


@dataclass(frozen=True)
class _Answer:
    bits: list[bytes]
    standings: list[bytes]
    applied: dict[bytes, bytes]
    registry: str


class Lookup:
    """Asks `store`. Raises StoreError."""

    def __init__(self, store: Store, tier_weights: Mapping[str, float]) -> None:
        self._store = store
        self._weights = tier_weights
        self._registry = ""
        self._key_sizes: dict[str, tuple[int, ...]] = {}
        self._decoded: dict[bytes, WorkerRecord] = {}
        self._slots: dict[tuple[str, tuple[tuple[Any, ...], ...]], BitColumns] = {}

    async def match(
        self,
        model: str,
        scope: int,
        prompt: PromptBlocks,
        may_be_unsettled: Callable[[Worker], bool] = lambda _: False,
    ) -> LookupResult:
        """How much of the prompt each worker of `model` holds."""
        found = await self._ask(model, scope, prompt)
        for _ in range(_MORE_TRIES):
            if all(map(may_be_unsettled, found.in_flight)):
                break
            await asyncio.sleep(_SETTLING_SECONDS)  # what is under way to other shards arrives
            found = await self._ask(model, scope, prompt)
        return found

    async def _ask(self, model: str, scope: int, prompt: PromptBlocks) -> LookupResult:
        """Ask for the bits of the prompt's blocks at every size of keys the model is known to have.

        One that turns out to be in use besides is asked for by another call.
        """
        asked_sizes = self._key_sizes.get(model) or (0,)
        while True:
            registry = self._registry
            bits, answers, touched = await self._fetch(scope, prompt, asked_sizes)
            self._registry = answers[0].registry
            standings = self._standings(model, answers)
            slots = self._slots_of(model, registry, standings)
            sizes = self._key_sizes[model] = tuple(slots.key_sizes)
            if set(sizes) <= set(asked_sizes):
                break
            asked_sizes = sizes
        return LookupResult(
            slots.match(prompt, bits),
            list(slots.pods),
            standings,
            {
                worker
                for worker, of in standings.items()
                if (of.places and of.registry != registry)
                or self._is_unsettled(of, touched, answers)
            },
        )

    async def _fetch(
        self, scope: int, prompt: PromptBlocks, sizes: Sequence[int]
    ) -> tuple[dict[int, list[bytes]], list[_Answer], set[int]]:
        """The bits of the prompt's blocks by size of keys, all answers, and the shards asked."""
        layout = self._store.layout
        keys = [prompt.block_keys(size or prompt.block_size) for size in sizes]
        names = np.concatenate([block_names(of_size, scope) for of_size in keys])
        shards = layout.shards_of(names)
        calls = [
            Call("look", shard, (names[shards == shard].tobytes(), self._registry))
            for shard in range(layout.shards)
        ]
        answers = [_read(answer) for answer in await self._store.call_all(calls)]
        found = np.empty(len(names), dtype=object)
        for shard, answer in enumerate(answers):
            found[shards == shard] = _objects(answer.bits)
        bits, start = {}, 0
        for size, of_size in zip(sizes, keys, strict=True):
            bits[size] = found[start : start + len(of_size)].tolist()
            start += len(of_size)
        return bits, answers, {int(shard) for shard in np.unique(shards)}

    def _is_unsettled(
        self, standing: WorkerRecord, touched: set[int], answers: Sequence[_Answer]
    ) -> bool:
        """Whether the worker's bits that were read may not be those its standing is about."""
        name = worker_name(standing.worker).encode()
        for shard in touched - {self._store.layout.home(standing.worker)}:
            applied = answers[shard].applied.get(name, b"").decode()
            told = standing.shard_stamps.get(shard)
            if told is None and applied.startswith(f"{standing.epoch}:"):
                return True
            if told is not None and applied != told:
                return True
        return False

    def _standings(self, model: str, answers: Sequence[_Answer]) -> dict[Worker, WorkerRecord]:
        found = []
        if len(self._decoded) > _MOST_DECODED:
            self._decoded.clear()
        for blob in (blob for answer in answers for blob in answer.standings):
            standing = self._decoded.get(blob)
            if standing is None:
                standing = self._decoded[blob] = WorkerRecord.unpack(blob)
            if standing.model == model:
                found.append(standing)
        return {standing.worker: standing for standing in sorted(found, key=lambda s: s.worker)}

    def _slots_of(
        self, model: str, registry: str, standings: dict[Worker, WorkerRecord]
    ) -> BitColumns:
        """What the slots of one registry stand for; in another they may be of somebody else."""
        workers = [
            BitColumnWorker(worker, of.layout, of.places if of.registry == registry else {})
            for worker, of in standings.items()
        ]
        names = tuple(
            (worker, standings[worker].packed_layout, *slots.items())
            for worker, _, slots in workers
        )
        slots = self._slots.get((model, names))
        if slots is None:
            self._slots = {key: kept for key, kept in self._slots.items() if key[0] != model}
            slots = self._slots[model, names] = BitColumns(workers, self._weights)
        return slots


def _read(answer: Any) -> _Answer:
    if isinstance(answer, StoreError):
        raise answer
    bits, standings, applied, registry = answer
    stamps = dict(zip(applied[::2], applied[1::2], strict=True))
    return _Answer(bits, standings[1::2], stamps, registry.decode())


def _objects(values: list[bytes]) -> Any:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found
