# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""msgpack -> the events of one batch, some with each step.

Compiled by Cython where a C compiler is at hand; the same source runs as plain Python elsewhere.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import cython

from kvevents.kernel.event_reader import read_event
from kvevents.kernel.event_tails import EventTail
from kvevents.kernel.reader import MalformedError, Reader, UnexpectedError

if TYPE_CHECKING:
    from collections.abc import Callable

_ARRAY_FIELDS = (b"ts", b"events", b"data_parallel_rank")
_EVENT_BYTES = cython.declare(cython.Py_ssize_t, 400)  # of an event without what it refers to
_HIGHEST_RANK = cython.declare(cython.longlong, 0x7FFFFFFF)


class UnknownEventError(Exception):
    """The event is of a type that this version does not know."""


class ExcessError(ValueError):
    """A batch has more than the limits allow; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@cython.cclass
class BatchReader:
    """Reads a batch: an array `[timestamp, events, rank]` or a map of the same.

    Args:
        data: the payload.
        most_bytes: what everything that is read may occupy in memory, about.
        most_events: how many events there may be.
        most_hashes: how many engine hashes these may have together.
        make_event: the results of `read_event`, and how many bytes they occupy -> an event and how
            many hashes it has. Raises UnknownEventError or UnexpectedError if there is no such
            event: it is skipped, and counted.
        make_stored: hashes, parent, tokens, other arguments, and how many bytes these occupy -> a
            BlockStored, of which `arguments_of` returns the other arguments.

    Attributes:
        timestamp: when the batch was published; 0.0 if that cannot be read.
        rank: the data-parallel rank, None if there is none.
        events: the events read so far.
        skipped: how many events could not be read, by reason.
        hashes: engine hashes of the events read so far.
    """

    def __init__(
        self,
        data: bytes,
        most_bytes: cython.Py_ssize_t,
        most_events: cython.Py_ssize_t,
        most_hashes: cython.Py_ssize_t,
        make_event: Callable[[object, list[object], int, int, int], tuple[Any, int]],
        make_stored: Callable[..., Any],
        arguments_of: Callable[[object], tuple[object, ...]],
    ) -> None:
        self._reader = Reader(data, most_bytes)
        self._most_events = most_events
        self._most_hashes = most_hashes
        self._make_event = make_event
        self._make_stored = make_stored
        self._arguments_of = arguments_of
        self.timestamp = 0.0
        self.rank: int | None = None
        self.events = []
        self.skipped = {}
        self.hashes = 0
        self._fields = -1  # that are left
        self._position = 0  # of the next field of an array
        self._is_map = False
        self._left = 0  # events of the list that is being read
        self._has_events = False

    @property
    def occupied(self) -> int:
        """About how many bytes everything read so far occupies in memory."""
        return self._reader.occupied

    def read(self, most: cython.Py_ssize_t) -> bool:
        """Read up to `most` more events, all if it is -1; returns whether something remains.

        Raises TooLargeError and ExcessError beyond the limits, MalformedError and UnexpectedError
        if there is no list of events. What comes after the events may be broken.
        """
        try:
            if self._fields < 0:
                self._begin()
            while self._left or self._fields:
                if self._left == 0:
                    self._fields -= 1
                    self._read_field()
                elif most == 0:
                    return True
                else:
                    most -= 1
                    self._read_event()
        except (MalformedError, UnexpectedError):
            if not self._has_events:
                raise
            self._fields = self._left = 0
        if not self._has_events:
            raise UnexpectedError("a batch has a timestamp and events")
        return False

    def _begin(self) -> cython.int:
        lead: cython.uchar = self._reader.next_byte()
        self._reader.seek(0)
        self._is_map = lead >> 4 == 0x8 or lead == 0xDE or lead == 0xDF
        if self._is_map:
            self._fields = self._reader.map_length()
        else:
            self._fields = min(self._reader.array_length(), 3)
        return 0

    def _read_field(self) -> cython.int:
        name = self._reader.name() if self._is_map else _ARRAY_FIELDS[self._position]
        self._position += 1
        if name == b"events":
            self._left = self._reader.array_length()
            self._has_events = True
            if self._left + len(self.events) > self._most_events:
                raise ExcessError("too_many_events", f"a frame has {self._left:,} events")
        elif name == b"ts":
            read = self._reader.read_nested(0)
            self.timestamp = read if isinstance(read, float) and isfinite(read) else 0.0
        elif name == b"data_parallel_rank":
            self.rank = self._read_rank()
        else:
            self._reader.skip_nested(0)
        return 0

    def _read_rank(self) -> int | None:
        try:
            rank = self._reader.read_nested(0)
        except (MalformedError, UnexpectedError):
            return None
        return rank if isinstance(rank, int) and 0 <= rank <= _HIGHEST_RANK else None

    def _read_event(self) -> cython.int:
        """Read or skip one event; if the payload ends or breaks inside it, skip what is left."""
        start: cython.Py_ssize_t = self._reader.position
        occupied: cython.Py_ssize_t = self._reader.occupied
        self._reader.occupy(_EVENT_BYTES)
        try:
            self._make(occupied)
            self._left -= 1
            return 0
        except MalformedError:
            return self._skip_rest()
        except UnknownEventError:
            self._count("unknown_event")
            self._left -= 1
            return 0
        except UnexpectedError:
            self._count("broken_event")
        try:
            self._reader.seek(start)
            self._reader.skip_nested(0)
        except MalformedError:
            return self._skip_rest()
        self._left -= 1
        return 0

    def _make(self, occupied: cython.Py_ssize_t) -> cython.int:
        """Read and make one event; occupied: bytes that were so before it."""
        tag, values, present, elements = read_event(self._reader)
        tail = cython.cast(EventTail, self._reader.tail)
        size: cython.Py_ssize_t = self._reader.occupied - occupied
        if tail is not None and tail.arguments is not None:
            event = self._make_stored(*values[:3], *tail.arguments, size)
            hashes = len(event.block_hashes)
        else:
            event, hashes = self._make_event(tag, values, present, elements, size)
            if tail is not None:
                tail.arguments = self._arguments_of(event)
        self.hashes += hashes
        if self.hashes > self._most_hashes:
            raise ExcessError("too_many_hashes", f"a frame has over {self._most_hashes:,} hashes")
        self.events.append(event)
        return 0

    def _skip_rest(self) -> cython.int:
        self.skipped["truncated_payload"] = self._left
        self._left = self._fields = 0
        return 0

    def _count(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
