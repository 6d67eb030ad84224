"""Payload bytes -> typed events. Pure: no I/O."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from kvevents.kernel import (
    FIELDS,
    BatchReader,
    ExcessError,
    MalformedError,
    TooLargeError,
    UnexpectedError,
    UnknownEventError,
)
from kvevents.wire.events import (
    AllBlocksCleared,
    Batch,
    BlockRemoved,
    BlockStored,
    Event,
    FrameLimits,
    PayloadError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

DECODE_ERRORS = ("truncated_payload", "broken_event")
"""Reasons for skipped events that mean that the payload was damaged on its way."""

_DEFAULT_LIMITS = FrameLimits()
_OLDEST_ARRAY_WITH_EXTRAS = 9  # elements of vLLM 0.17's array, the first with extra keys
_SLICE_EVENTS = 64
_READ_ERRORS = {
    TooLargeError: "too_many_elements",
    MalformedError: "malformed_payload",
    UnexpectedError: "unexpected_payload",
}
_READ_FAILURES = (ExcessError, TooLargeError, MalformedError, UnexpectedError)
_REQUIRED = ("block_hashes", "parent_block_hash", "token_ids", "block_size")
_REQUIRED_BITS = sum(1 << FIELDS.index(name) for name in _REQUIRED)
_REMOVED_SLOTS = tuple(
    map(FIELDS.index, ("block_hashes", "medium", "group_idx", "remaining_copy_counts"))
)
_HASHES, _BLOCK_SIZE = FIELDS.index("block_hashes"), FIELDS.index("block_size")
_LORA_NAME, _CACHE_SALT = FIELDS.index("lora_name"), FIELDS.index("cache_salt")
_STORED_FIELDS = FIELDS.index("origin") + 1
# All that a BlockStored is made of but its blocks and its size.
_arguments_of = attrgetter(*[field.name for field in fields(BlockStored)[3:-1]])


def decode_batch(payload: bytes, limits: FrameLimits = _DEFAULT_LIMITS) -> Batch:
    """The batch in a payload, which is an array `[timestamp, events, rank]` or a map of the same.

    An unknown or broken event is skipped and counted by reason; the events before and after it are
    kept. Raises PayloadError if there is no list of events at all, or if the limits are exceeded.
    """
    reader = _begin(payload, limits)
    try:
        reader.read(-1)
    except _READ_FAILURES as error:
        raise _payload_error(error) from error
    return _batch(reader)


def decode_in_slices(
    payload: bytes, limits: FrameLimits = _DEFAULT_LIMITS
) -> Generator[None, None, Batch]:
    """Decode a batch as `decode_batch` does, some events with each step; returns the batch."""
    reader = _begin(payload, limits)
    try:
        while reader.read(_SLICE_EVENTS):
            yield
    except _READ_FAILURES as error:
        raise _payload_error(error) from error
    return _batch(reader)


def _begin(payload: bytes, limits: FrameLimits) -> BatchReader:
    if len(payload) > limits.payload_bytes:
        raise PayloadError("frame_too_large", f"a payload has {len(payload):,} bytes")
    return BatchReader(
        payload,
        limits.decoded_bytes,
        limits.events,
        limits.hashes,
        _event,
        BlockStored,
        _arguments_of,
    )


def _payload_error(error: Exception) -> PayloadError:
    if isinstance(error, ExcessError):
        return PayloadError(error.reason, str(error))
    reason = next(reason for kind, reason in _READ_ERRORS.items() if isinstance(error, kind))
    return PayloadError(reason, str(error))


def _batch(reader: BatchReader) -> Batch:
    return Batch(
        reader.timestamp,
        reader.events,
        reader.rank,
        reader.skipped,
        reader.occupied,
        reader.hashes,
    )


def _event(
    tag: object, values: list[Any], present: int, elements: int, size: int
) -> tuple[Event, int]:
    """An event of the results of `read_event`, and how many hashes it has."""
    if tag == "BlockStored":
        return _stored(values, present, elements, size), len(values[_HASHES])
    if tag == "BlockRemoved":
        if not present & 1 << _HASHES:
            raise UnexpectedError("block_hashes is missing")
        return _removed(values), len(values[_HASHES])
    if tag == "AllBlocksCleared":
        return AllBlocksCleared(), 0
    raise UnknownEventError(tag)


def _removed(values: list[Any]) -> BlockRemoved:
    removed = BlockRemoved(*(values[slot] for slot in _REMOVED_SLOTS))
    counts = removed.remaining_copy_counts
    if counts is not None and not (
        len(counts) == len(removed.block_hashes)
        and all(isinstance(count, int) and count >= 0 for count in counts)
    ):
        raise UnexpectedError("remaining_copy_counts is not a count for each hash")
    return removed


def _stored(values: list[Any], present: int, elements: int, size: int) -> BlockStored:
    if present & _REQUIRED_BITS != _REQUIRED_BITS:
        missing = next(name for name in _REQUIRED if not present & 1 << FIELDS.index(name))
        raise UnexpectedError(f"{missing} is missing")
    if values[_BLOCK_SIZE] is None:
        raise UnexpectedError("block_size is None")
    carries_extras = not 0 < elements < _OLDEST_ARRAY_WITH_EXTRAS
    metadata = values[_LORA_NAME]
    if isinstance(metadata, dict):  # SGLang has it where vLLM has the adapter
        carries_extras = True
        adapter, salt = metadata.get("lora_name"), metadata.get("cache_salt")
        if not all(value is None or isinstance(value, str) for value in (adapter, salt)):
            raise UnexpectedError("the metadata's adapter or salt is no string")
        values[_LORA_NAME], values[_CACHE_SALT] = adapter, salt
    return BlockStored(*[*values[:_STORED_FIELDS], elements, carries_extras, size])
