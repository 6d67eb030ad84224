"""Packs values, and checks what was read: types, and bounds that no value of a replica exceeds.

Whatever fails raises ValueError, for `store.errors.decoding` to turn into a StoreError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from indexer import CacheLayout, Place, StableHolderIds, TrustState, TrustStatus, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MAX_BIT = 2**20 - 1
"""The highest bit of a bitmap."""
MAX_COUNT = 2**53
_MAX_NAME = 4096  # characters
_MAX_GROUPS = 1024
_MAX_HOLDERS = 4096
_MAX_LENGTH = 2**31 - 1  # tokens
_MAX_ID = 2**32 - 1
_MAX_SEQUENCE = 2**64 - 1


def pack(value: Any) -> bytes:
    """Return a value as msgpack."""
    blob: bytes = msgpack.packb(value)
    return blob


def unpack(blob: Any, most: int) -> Any:
    """Return the value that was packed in at most `most` bytes, with lists for tuples."""
    if not isinstance(blob, bytes) or len(blob) > most:
        raise ValueError(f"{len(blob)} bytes are more than {most}")
    return msgpack.unpackb(blob, strict_map_key=False)


def text(value: Any, longest: int = _MAX_NAME) -> str:
    """Return a text of at most `longest` characters."""
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"not a text of at most {longest} characters: {_shown(value)}")
    return value


def whole(value: Any, most: int = MAX_COUNT, least: int = 0) -> int:
    """Return an integer from `least` to `most`."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"not an integer from {least} to {most}: {_shown(value)}")
    return value


def items(value: Any, most: int) -> list[Any]:
    """Return a list of at most `most` items."""
    if not isinstance(value, (list, tuple)) or len(value) > most:
        raise ValueError(f"not a list of at most {most} items: {_shown(value)}")
    return list(value)


def mapping(
    value: Any, most: int, key: Callable[[Any], Hashable], item: Callable[[Any], Any]
) -> dict[Any, Any]:
    """Return a mapping of at most `most` entries; `key` and `item` check them."""
    if not isinstance(value, dict) or len(value) > most:
        raise ValueError(f"not a mapping of at most {most} entries: {_shown(value)}")
    return {key(name): item(one) for name, one in value.items()}


def worker(value: Any) -> Worker:
    """Return a worker."""
    pod, rank = items(value, 2)
    return Worker(text(pod), whole(rank, _MAX_LENGTH))


def place(value: Any) -> Place:
    """Return a place that counts in scores."""
    tier, group = items(value, 2)
    return Place(text(tier), whole(group, _MAX_LENGTH))


def bit(value: Any) -> int:
    """Return the position of a bit."""
    return whole(value, MAX_BIT)


def holder_id(value: Any) -> int:
    """Return a holder id."""
    return whole(value, _MAX_ID)


def shard_stamps(value: Any) -> dict[int, str]:
    """Return shard -> stamp."""
    return mapping(value, 1024, lambda shard: whole(shard, 1023), lambda stamp: text(stamp, 64))


def trust_status(value: Any) -> TrustStatus:
    """Return a trust status as an owner writes it, without the silence."""
    state, reason, _, as_of = items(value, 4)
    sequence = None if as_of is None else whole(as_of, _MAX_SEQUENCE)
    return TrustStatus(TrustState(state), text(reason, 256), None, sequence)


def layout(value: Any) -> CacheLayout:
    """Return a cache layout."""
    size, groups, chunk, speculative, chunks = items(value, 5)
    for group in items(groups, _MAX_GROUPS):
        number, kind, *lengths = items(group, 4)
        whole(number, _MAX_LENGTH)
        text(kind, 256)
        for length in lengths:
            whole(length, _MAX_LENGTH)
    for length in (size, chunk):
        whole(length, _MAX_LENGTH)
    if speculative is not None and not isinstance(speculative, bool):
        raise ValueError(f"not a choice: {_shown(speculative)}")
    for tier, length in (items(pair, 2) for pair in items(chunks, 256)):
        text(tier)
        whole(length, _MAX_LENGTH)
    return CacheLayout.load(value)


def holder_ids(value: Any) -> StableHolderIds:
    """Return the holder ids of a worker: each belongs to one holder, and is below the next one."""
    dumped, next_id = items(value, 2)
    following = whole(next_id, _MAX_ID)
    ids: dict[Place | None, int] = {}
    for number, tier, group in (items(one, 3) for one in items(dumped, _MAX_HOLDERS)):
        key = None if tier is None else Place(text(tier), whole(group, _MAX_LENGTH, -_MAX_LENGTH))
        ids[key] = whole(number, following - 1)
    if len(set(ids.values())) != len(dumped):
        raise ValueError("two holders with one id")
    return StableHolderIds(ids, following)


def _shown(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} {str(value)[:40]!r}" if isinstance(value, (str, int)) else kind
