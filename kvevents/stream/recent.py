"""The last events of one worker, for those who ask what became of a block."""

from __future__ import annotations

from array import array
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from kvevents.wire import AllBlocksCleared, BlockStored, decode_batch, tier_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from indexer import Hashes
    from kvevents.wire import Batch, Event

_MOST_BYTES = 32 * 1024  # of one worker
_FRAME_BYTES = 200  # of a frame, besides its payload
_LARGE_FRAME = 8 * 1024  # bytes beyond which only parts of its events are kept
_SLIM_EVENTS = 16
_SLIM_BYTES = 2048  # of so many events, without their hashes
_NOTHING = array("Q")


class RecentEvent(NamedTuple):
    """An event, and when it was applied."""

    sequence: int
    """Of its frame."""
    applied_at: float
    """`time.monotonic`."""
    type: str
    """`BlockStored`, `BlockRemoved` or `AllBlocksCleared`."""
    tier: str
    """Empty for `AllBlocksCleared`."""
    group: int
    hashes: Hashes
    """The engine hashes that it names; of a large frame's events perhaps only the first ones."""
    stored: BlockStored | None
    """The event itself, if it stored blocks and its tokens are still known."""


class RecentEvents:
    """The events of a worker's last frames.

    Every live frame is added, so that must cost next to nothing: what is kept of it is its payload,
    a single object, which is decoded again by whoever asks.
    """

    __slots__ = ("_frames", "_room")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, float, int, bytes | Batch | _Slim]] = deque()
        self._room = _MOST_BYTES

    def add_live(self, sequence: int, applied_at: float, payload: bytes, batch: Batch) -> None:
        """Keep a frame that is about to be applied, given as it came and decoded."""
        size = len(payload) + _FRAME_BYTES
        if size > _LARGE_FRAME:
            self.add(sequence, applied_at, batch)
            return
        self._frames.append((sequence, applied_at, size, payload))
        self._room -= size
        while self._room < 0:
            self._room += self._frames.popleft()[2]

    def add(self, sequence: int, applied_at: float, batch: Batch) -> None:
        """Keep the events of a frame that is about to be applied; of a large one without tokens."""
        kept = batch if batch.size <= _LARGE_FRAME else _Slim(batch.events)
        self._frames.append((sequence, applied_at, kept.size, kept))
        self._room -= kept.size
        while self._room < 0:
            self._room += self._frames.popleft()[2]

    def newest_first(self) -> Iterator[RecentEvent]:
        """Yield the events, the last one first."""
        for sequence, applied_at, _, kept in reversed(self._frames):
            if isinstance(kept, _Slim):
                for kind, medium, group, hashes in kept.newest_first():
                    yield _recent(sequence, applied_at, kind, medium, group, hashes, None)
                continue
            batch = decode_batch(kept) if isinstance(kept, bytes) else kept
            for event in reversed(batch.events):
                stored = event if isinstance(event, BlockStored) else None
                fields = _fields_of(event)
                yield _recent(sequence, applied_at, type(event), *fields, stored)


class _Slim:
    """The last events of a large frame, without tokens and extra keys."""

    __slots__ = ("_events", "size")

    def __init__(self, events: list[Event]) -> None:
        last = events[-_SLIM_EVENTS:]
        try:
            fields: list[_Fields] = [*map(_stored_fields, last)]
        except AttributeError:  # of an event that clears all blocks
            fields = [*map(_fields_of, last)]
        self._events = [*zip(map(type, last), fields, strict=True)]
        self.size = _SLIM_BYTES + 8 * sum(len(hashes) for _, _, hashes in fields)
        if self.size > _LARGE_FRAME:
            most = _LARGE_FRAME // 8 // len(last)
            self._events = [(kind, (m, g, hs[:most])) for kind, (m, g, hs) in self._events]
            self.size = _SLIM_BYTES + _LARGE_FRAME

    def newest_first(self) -> Iterator[tuple[type[Event], str | None, int | None, Hashes]]:
        """Yield type, medium, group and some of the hashes of each event."""
        for kind, fields in reversed(self._events):
            yield (kind, *fields)


_Fields = tuple["str | None", "int | None", "Hashes"]
_stored_fields = attrgetter("medium", "group_idx", "block_hashes")


def _fields_of(event: Event) -> _Fields:
    if isinstance(event, AllBlocksCleared):
        return None, None, _NOTHING
    return event.medium, event.group_idx, event.block_hashes


def _recent(
    sequence: int,
    applied_at: float,
    kind: type[Event],
    medium: str | None,
    group: int | None,
    hashes: Hashes,
    stored: BlockStored | None,
) -> RecentEvent:
    tier = "" if kind is AllBlocksCleared else tier_of(medium)
    return RecentEvent(sequence, applied_at, kind.__name__, tier, group or 0, hashes, stored)
