"""Payload bytes -> typed events. Pure: no I/O.

Fields have the names and the meaning that vLLM and SGLang give them in their KV events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvevents.kernel import (
    ABSENT,
    FIELDS,
    MalformedError,
    Reader,
    UnexpectedError,
    read_event,
)

if TYPE_CHECKING:
    from array import array


@dataclass(slots=True)
class BlockStored:
    """An engine has cached consecutive blocks of one sequence.

    Fields without a comment are as on the wire, and None if the event does not have them.
    """

    block_hashes: array[int]
    """Engine hashes, 'Q'; of a digest the last 8 bytes, as vLLM itself makes integers of them."""
    parent_block_hash: int | None
    """The block before these; None if they begin a sequence."""
    token_ids: array[int]
    """'Q'; of SGLang's EAGLE pairs the first of each."""
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    ownership: str | None = None
    session_id: str | None = None
    lookahead_token_ids: list[list[int]] | None = None
    cache_salt: str | None = None
    origin: str | None = None
    elements: int = 0
    """How many elements the event had as an array on the wire; 0 for a map."""
    carries_extras: bool = True
    """Whether this form of event has room for salts and images."""


@dataclass(slots=True)
class BlockRemoved:
    """An engine has dropped one copy of each of these blocks."""

    block_hashes: array[int]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None
    remaining_copy_counts: list[int] | None = None
    """How many copies of each block are left, if the engine says so."""


@dataclass(slots=True)
class AllBlocksCleared:
    """An engine has dropped all blocks in its GPU's memory."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(slots=True)
class Batch:
    """The events of one message."""

    timestamp: float
    """When the engine published them, by its own clock; 0.0 if that cannot be read."""
    events: list[Event]
    """In the order in which they happened."""
    rank: int | None
    """The data-parallel rank, None if the message does not have it."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many events could not be decoded, by reason."""


DECODE_ERRORS = ("truncated_payload", "broken_event")
"""Reasons for skipped events that mean that the payload was damaged on its way."""


class PayloadError(ValueError):
    """A payload is no batch of events at all; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


_OLDEST_ARRAY_WITH_EXTRAS = 9  # elements of vLLM 0.17's array, the first with extra keys
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
            "locality",
            "ownership",
            "remaining_copy_counts",
        ),
    )
)
_MAPS = frozenset(bytes([lead]) for lead in (*range(0x80, 0x90), 0xDE, 0xDF))
_STORED_FIELDS = FIELDS.index("origin") + 1


def decode_batch(payload: bytes) -> Batch:
    """The batch in a payload, which is an array `[timestamp, events, rank]` or a map of the same.

    An unknown or broken event is skipped and counted by reason; the events before and after it are
    kept. Raises PayloadError if there is no list of events at all.
    """
    reader = Reader(payload)
    batch = Batch(0.0, [], None)
    try:
        if payload[:1] in _MAPS:
            _decode_map(reader, batch)
        else:
            _decode_array(reader, batch)
    except MalformedError as error:
        raise PayloadError("malformed_payload", str(error)) from error
    except UnexpectedError as error:
        raise PayloadError("unexpected_payload", str(error)) from error
    return batch


def _decode_array(reader: Reader, batch: Batch) -> None:
    length = reader.array_length()
    if length < 2:
        raise UnexpectedError("a batch has a timestamp and events")
    batch.timestamp = _timestamp(reader)
    if _decode_events(reader, batch, reader.array_length()) and length > 2:
        batch.rank = _rank(reader)


def _decode_map(reader: Reader, batch: Batch) -> None:
    """Decode a map with its fields in any order; after the events it may be broken."""
    has_events = False
    for _ in range(reader.map_length()):
        try:
            name = reader.name()
            if name == b"events":
                count = reader.array_length()
                has_events = True
                if not _decode_events(reader, batch, count):
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
    return timestamp if isinstance(timestamp, float) else 0.0


def _decode_events(reader: Reader, batch: Batch, count: int) -> bool:
    """Decode `count` events; False if the payload ends or breaks inside one of them."""
    for index in range(count):
        if not _decode_event(reader, batch):
            batch.skipped["truncated_payload"] = count - index
            return False
    return True


def _decode_event(reader: Reader, batch: Batch) -> bool:
    """Decode or skip one event; False if the payload ends or breaks inside the event."""
    start = reader.position
    try:
        tag, values, elements = read_event(reader)
        batch.events.append(_event(tag, values, elements))
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
    if isinstance(fields[6], dict):  # SGLang's metadata, where vLLM has the adapter
        metadata, carries_extras = fields[6], True
        fields[6], fields[15] = metadata.get("lora_name"), metadata.get("cache_salt")
        if not all(value is None or isinstance(value, str) for value in (fields[6], fields[15])):
            raise UnexpectedError("the metadata's adapter or salt is no string")
    fields += [elements, carries_extras]
    return BlockStored(*fields)


def _rank(reader: Reader) -> int | None:
    try:
        rank = reader.read()
    except (MalformedError, UnexpectedError):
        return None
    return rank if isinstance(rank, int) and 0 <= rank <= _HIGHEST_RANK else None
