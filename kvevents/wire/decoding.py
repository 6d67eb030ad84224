"""Payload bytes -> typed events. Pure: no I/O."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Generator

DECODE_ERRORS = ("truncated_payload", "broken_event")
"""Reasons for skipped events that mean that the payload was damaged on its way."""

_DEFAULT_LIMITS = FrameLimits()
_OLDEST_ARRAY_WITH_EXTRAS = 9  # elements of vLLM 0.17's array, the first with extra keys
_EVENT_BYTES = 400  # of an event without what its fields refer to
_ARRAY_FIELDS = (b"ts", b"events", b"data_parallel_rank")
_SLICE_EVENTS = 64
_READ_ERRORS = {
    TooLargeError: "too_many_elements",
    MalformedError: "malformed_payload",
    UnexpectedError: "unexpected_payload",
}
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
    reader, batch = _begin(payload, limits)
    try:
        for _ in _decode(reader, batch, limits, is_map=payload[:1] in _MAPS):
            pass
    except (TooLargeError, MalformedError, UnexpectedError) as error:
        raise _payload_error(error) from error
    batch.size = reader.occupied
    return batch


def decode_in_slices(
    payload: bytes, limits: FrameLimits = _DEFAULT_LIMITS
) -> Generator[None, None, Batch]:
    """Decode a batch as `decode_batch` does, some events with each step; returns the batch."""
    reader, batch = _begin(payload, limits)
    try:
        yield from _decode(reader, batch, limits, is_map=payload[:1] in _MAPS)
    except (TooLargeError, MalformedError, UnexpectedError) as error:
        raise _payload_error(error) from error
    batch.size = reader.occupied
    return batch


def _begin(payload: bytes, limits: FrameLimits) -> tuple[Reader, Batch]:
    if len(payload) > limits.payload_bytes:
        raise PayloadError("frame_too_large", f"a payload has {len(payload):,} bytes")
    return Reader(payload, limits.decoded_bytes), Batch(0.0, [], None)


def _payload_error(error: Exception) -> PayloadError:
    reason = next(reason for kind, reason in _READ_ERRORS.items() if isinstance(error, kind))
    return PayloadError(reason, str(error))


def _decode(
    reader: Reader, batch: Batch, limits: FrameLimits, *, is_map: bool
) -> Generator[None, None, None]:
    """Decode the fields of a batch; after the events it may be broken."""
    has_events = False
    count = reader.map_length() if is_map else reader.array_length()
    for position in range(count if is_map else min(count, len(_ARRAY_FIELDS))):
        try:
            name = reader.name() if is_map else _ARRAY_FIELDS[position]
            if name == b"events":
                events = reader.array_length()
                has_events = True
                for index in range(_checked(events, batch, limits)):
                    if index % _SLICE_EVENTS == _SLICE_EVENTS - 1:
                        yield
                    if not _decode_event(reader, batch, limits):
                        batch.skipped["truncated_payload"] = events - index
                        return
            else:
                _decode_field(reader, batch, name)
        except (MalformedError, UnexpectedError):
            if has_events:
                return
            raise
    if not has_events:
        raise UnexpectedError("a batch has a timestamp and events")


def _decode_field(reader: Reader, batch: Batch, name: bytes) -> None:
    if name == b"ts":
        batch.timestamp = _timestamp(reader)
    elif name == b"data_parallel_rank":
        batch.rank = _rank(reader)
    else:
        reader.skip()


def _checked(events: int, batch: Batch, limits: FrameLimits) -> int:
    """The number of events in a list. Raises PayloadError if there are too many."""
    if events + len(batch.events) > limits.events:
        raise PayloadError("too_many_events", f"a frame has {events:,} events")
    return events


def _timestamp(reader: Reader) -> float:
    timestamp = reader.read()
    return timestamp if isinstance(timestamp, float) and isfinite(timestamp) else 0.0


def _decode_event(reader: Reader, batch: Batch, limits: FrameLimits) -> bool:
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
            if batch.hashes > limits.hashes:
                raise PayloadError("too_many_hashes", f"a frame has over {limits.hashes:,} hashes")
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
