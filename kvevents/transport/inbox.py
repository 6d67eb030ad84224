"""What has come through a source's socket and was not handled yet, in order of arrival."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_MESSAGE_BYTES = 300  # of a message without the bytes in it


class Message(NamedTuple):
    """A message, and the connection that it came through."""

    parts: list[bytes]
    connection: int
    size: int
    """About how many bytes it occupies."""


class Inbox:
    """Messages and new connections, first in, first out, within limits.

    Args:
        most_messages: how many messages may wait.
        most_bytes: how many bytes they may occupy, about.
    """

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._items: deque[Message | int] = deque()
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be fetched; what was fetched already may still be added."""
        return self._bytes >= self._most_bytes or len(self._items) >= self._most_messages

    def add_message(self, parts: list[bytes], connection: int) -> None:
        """Add a message."""
        size = _MESSAGE_BYTES + sum(map(len, parts))
        self._bytes += size
        self._items.append(Message(parts, connection, size))

    def add_connection(self, connection: int) -> None:
        """Add a new connection: what came before it is to be handled before it."""
        self._items.append(connection)

    def pop(self) -> Message | int:
        """Remove and return the oldest message or connection. Raises IndexError."""
        item = self._items.popleft()
        if isinstance(item, Message):
            self._bytes -= item.size
        return item

    def __len__(self) -> int:
        return len(self._items)
