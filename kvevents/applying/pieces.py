"""Events with many hashes -> several events that say the same, to be applied one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvevents.wire import AllBlocksCleared, BlockRemoved, BlockStored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvevents.wire import Batch, Event

PIECE_KEYS = 512
EVENT_WEIGHT = 16  # an event without hashes takes as long as so many hashes
_SHORT_BATCH = 32  # events
_MOST_INDIVISIBLE = 4096  # hashes of an event that cannot be divided


def is_short(batch: Batch, span: int) -> bool:
    """Whether a batch has so little in it that it is applied at once; see `pieces_of`."""
    return len(batch.events) <= _SHORT_BATCH and batch.hashes * span <= PIECE_KEYS


def exhaust(slices: Iterator[None]) -> None:
    """Do all the slices of some work at once."""
    for _ in slices:
        pass


def weight_of(batch: Batch, span: int) -> int:
    """How long it takes to apply a batch, in block keys; see `pieces_of`."""
    return EVENT_WEIGHT * len(batch.events) + batch.hashes * span


def hash_count(event: Event) -> int:
    """How many engine hashes an event has."""
    return 0 if isinstance(event, AllBlocksCleared) else len(event.block_hashes)


def pieces_of(event: Event, span: int = 1) -> Iterator[Event]:
    """The event itself, or several that stand for `PIECE_KEYS` block keys at most.

    span: how many block keys an engine hash may stand for.

    Yields nothing for an event that has too many and cannot be divided: one whose images may
    extend over several blocks, or that has tokens for more blocks than it has hashes.
    """
    count, most = hash_count(event), max(1, PIECE_KEYS // span)
    if count <= most or isinstance(event, AllBlocksCleared):
        yield event
    elif isinstance(event, BlockRemoved):
        for start in range(0, count, most):
            yield _removed(event, slice(start, start + most))
    elif _is_divisible(event):
        for start in range(0, count, most):
            yield _stored(event, start, start + most)
    elif count <= _MOST_INDIVISIBLE:
        yield event


def _removed(event: BlockRemoved, part: slice) -> BlockRemoved:
    counts = event.remaining_copy_counts
    return replace(
        event,
        block_hashes=event.block_hashes[part],
        remaining_copy_counts=None if counts is None else counts[part],
    )


def _is_divisible(event: BlockStored) -> bool:
    is_dense = len(event.block_hashes) * event.block_size == len(event.token_ids)
    has_extras = event.extra_keys is not None and any(event.extra_keys)
    return (is_dense or not event.token_ids) and not has_extras


def _stored(event: BlockStored, start: int, end: int) -> BlockStored:
    hashes, tokens, size = event.block_hashes, event.token_ids, event.block_size
    return replace(
        event,
        block_hashes=hashes[start:end],
        parent_block_hash=hashes[start - 1] if start else event.parent_block_hash,
        token_ids=tokens[start * size : end * size] if tokens else tokens,
        extra_keys=None,
        cache_salt=None if start else event.cache_salt,
        size=event.size * (min(end, len(hashes)) - start) // len(hashes),
    )
