"""Payload bytes -> typed events. Pure: no I/O."""

from __future__ import annotations

from math import isfinite
from typing import Any

from kvevents.kernel import (
    ABSENT,
    FIELDS,
    MalformedError,
    Reader,
    TooLargeError,
    UnexpectedError,
    read_event,
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

DECODE_ERRORS = ("truncated_payload", "broken_event")
"""Reasons for skipped events that mean that the payload was damaged on its way."""

_DEFAULT_LIMITS = FrameLimits()
_OLDEST_ARRAY_WITH_EXTRAS = 9  # elements of vLLM 0.17's array, the first with extra keys
_EVENT_BYTES = 400  # of an event without what its fields refer to
_HIGHEST_RANK = 2**31 - 1
_REQUIRED_SLOTS = tuple(
    map(FIELDS.index, ("block_hashes", "parent_block_hash", "token_ids", "block_size"))
)
_REMOVED_SLOTS = tuple(
    map(
        FIELDS.index,
        (
            "block_hashes",
            "medium",
            "group_idx",
            "remaining_copy_counts",
        ),
    )
)
_MAPS = frozenset(bytes([lead]) for lead in (*range(0x80, 0x90), 0xDE, 0xDF))
_STORED_FIELDS = FIELDS.index("origin") + 1
_LORA_NAME, _CACHE_SALT = FIELDS.index("lora_name"), FIELDS.index("cache_salt")


def decode_batch(payload: bytes, limits: FrameLimits = _DEFAULT_LIMITS) -> Batch:
    """The batch in a payload, which is an array `[timestamp, events, rank]` or a map of the same.

    An unknown or broken event is skipped and counted by reason; the events before and after it are
    kept. Raises PayloadError if there is no list of events at all, or if the limits are exceeded.
    """
    if len(payload) > limits.payload_bytes:
        raise PayloadError("frame_too_large", f"a payload has {len(payload):,} bytes")
    reader = Reader(payload, limits.decoded_bytes)
    batch = Batch(0.0, [], None)
    try:
        if payload[:1] in _MAPS:
            _decode_map(reader, batch, limits)
        else:
            _decode_array(reader, batch, limits)
    except TooLargeError as error:
        raise PayloadError("too_many_elements", str(error)) from error
    except MalformedError as error:
        raise PayloadError("malformed_payload", str(error)) from error
    except UnexpectedError as error:
        raise PayloadError("unexpected_payload", str(error)) from error
    batch.size = reader.occupied
    return batch


def _decode_array(reader: Reader, batch: Batch, limits: FrameLimits) -> None:
    length = reader.array_length()
    if length < 2:
        raise UnexpectedError("a batch has a timestamp and events")
    batch.timestamp = _timestamp(reader)
    if _decode_events(reader, batch, limits) and length > 2:
        batch.rank = _rank(reader)


def _decode_map(reader: Reader, batch: Batch, limits: FrameLimits) -> None:
    """Decode a map with its fields in any order; after the events it may be broken."""
    has_events = False
    for _ in range(reader.map_length()):
        try:
            name = reader.name()
            if name == b"events":
                is_whole = _decode_events(reader, batch, limits)
                has_events = True
                if not is_whole:
                    return
            elif name == b"ts":
                batch.timestamp = _timestamp(reader)
            elif name == b"data_parallel_rank":
                batch.rank = _rank(reader)
            else:
                reader.skip()
        except (MalformedError, UnexpectedError):
            if has_events:
                return
            raise
    if not has_events:
        raise UnexpectedError("a batch has a timestamp and events")


def _timestamp(reader: Reader) -> float:
    timestamp = reader.read()
    return timestamp if isinstance(timestamp, float) and isfinite(timestamp) else 0.0


def _decode_events(reader: Reader, batch: Batch, limits: FrameLimits) -> bool:
    """Decode a list of events; False if the payload ends or breaks inside one of them."""
    count = reader.array_length()
    if count + len(batch.events) > limits.events:
        raise PayloadError("too_many_events", f"a frame has {count:,} events")
    for index in range(count):
        if not _decode_event(reader, batch):
            batch.skipped["truncated_payload"] = count - index
            return False
        if batch.hashes > limits.hashes:
            raise PayloadError("too_many_hashes", f"a frame has more than {limits.hashes:,} hashes")
    return True


def _decode_event(reader: Reader, batch: Batch) -> bool:
    """Decode or skip one event; False if the payload ends or breaks inside the event."""
    start, occupied = reader.position, reader.occupied
    reader.occupy(_EVENT_BYTES)
    try:
        tag, values, elements = read_event(reader)
        event = _event(tag, values, elements)
        if isinstance(event, BlockStored):
            event.size = reader.occupied - occupied
        if not isinstance(event, AllBlocksCleared):
            batch.hashes += len(event.block_hashes)
        batch.events.append(event)
        return True
    except MalformedError:
        return False
    except _UnknownEventError:
        _count(batch.skipped, "unknown_event")
        return True
    except UnexpectedError:
        _count(batch.skipped, "broken_event")
    try:
        reader.seek(start)
        reader.skip()
    except MalformedError:
        return False
    return True


def _count(skipped: dict[str, int], reason: str) -> None:
    skipped[reason] = skipped.get(reason, 0) + 1


class _UnknownEventError(Exception):
    """The event is of a type that this version does not know."""


def _event(tag: str, values: list[Any], elements: int) -> Event:
    if tag == "BlockStored":
        return _stored(values, elements)
    if tag == "BlockRemoved":
        if values[0] is ABSENT:
            raise UnexpectedError("block_hashes is missing")
        return _removed(values)
    if tag == "AllBlocksCleared":
        return AllBlocksCleared()
    raise _UnknownEventError(tag)


def _removed(values: list[Any]) -> BlockRemoved:
    removed = BlockRemoved(*(_or_none(values[slot]) for slot in _REMOVED_SLOTS))
    counts = removed.remaining_copy_counts
    if counts is not None and not (
        len(counts) == len(removed.block_hashes)
        and all(isinstance(count, int) and count >= 0 for count in counts)
    ):
        raise UnexpectedError("remaining_copy_counts is not a count for each hash")
    return removed


def _or_none(value: Any) -> Any:
    return None if value is ABSENT else value


def _stored(values: list[Any], elements: int) -> BlockStored:
    for slot in _REQUIRED_SLOTS:
        if values[slot] is ABSENT:
            raise UnexpectedError(f"{FIELDS[slot]} is missing")
    if values[3] is None:
        raise UnexpectedError("block_size is None")
    fields: list[Any] = [_or_none(value) for value in values[:_STORED_FIELDS]]
    carries_extras = not 0 < elements < _OLDEST_ARRAY_WITH_EXTRAS
    metadata = fields[_LORA_NAME]
    if isinstance(metadata, dict):  # SGLang has it where vLLM has the adapter
        carries_extras = True
        adapter, salt = metadata.get("lora_name"), metadata.get("cache_salt")
        if not all(value is None or isinstance(value, str) for value in (adapter, salt)):
            raise UnexpectedError("the metadata's adapter or salt is no string")
        fields[_LORA_NAME], fields[_CACHE_SALT] = adapter, salt
    fields += [elements, carries_extras]
    return BlockStored(*fields)


def _rank(reader: Reader) -> int | None:
    try:
        rank = reader.read()
    except (MalformedError, UnexpectedError):
        return None
    return rank if isinstance(rank, int) and 0 <= rank <= _HIGHEST_RANK else None
