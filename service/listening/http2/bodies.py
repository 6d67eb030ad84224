"""What is done with requests, and what their bodies take until they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.listening.http2.stream import Stream


class Requests(NamedTuple):
    """What a listener does with the requests of all its connections."""

    begin: Callable[[Stream], None]
    """Is told of a request when its headers have come."""
    progress: Callable[[Stream], None]
    """Is told when more of it has come."""
    refused: Callable[[str], None]
    """Is told why one is reset before it begins, or because of what its peer sends."""
    bodies: Bodies


class Bodies:
    """Bytes of bodies that wait to be whole or to be read.

    When they take too much, the streams which have kept some for longest give way. An honest
    request is whole within milliseconds, so those of a peer who holds back the ends go first.

    Args:
        most: bytes of all of them together.
        give_way: ends a stream.
    """

    def __init__(self, most: int, give_way: Callable[[Stream], None]) -> None:
        self._most = most
        self._give_way = give_way
        self._kept: dict[Stream, int] = {}  # those which have kept some for longest come first
        self.size = 0
        """Bytes that all streams keep."""

    def keep(self, stream: Stream, size: int) -> None:
        """A stream keeps `size` more bytes."""
        self._kept[stream] = self._kept.get(stream, 0) + size
        self.size += size
        while self.size > self._most and self._kept:
            oldest = next(iter(self._kept))
            self.forget(oldest)
            self._give_way(oldest)

    def release(self, stream: Stream, size: int) -> None:
        """A stream has read `size` bytes, but perhaps not all that it keeps."""
        left = self._kept.get(stream, 0) - size
        if left <= 0:
            self.forget(stream)
        else:
            self.size -= size
            self._kept[stream] = left

    def forget(self, stream: Stream) -> None:
        """A stream has ended, or its whole request is read."""
        self.size -= self._kept.pop(stream, 0)
