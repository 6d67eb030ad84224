"""Which fields of a request's body were looked at: the others had no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override


class ReadFields(Mapping[str, Any]):
    """A JSON object that remembers which of its fields were looked at.

    Attributes:
        read: their names.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self.read: set[str] = set()

    @override
    def __getitem__(self, name: str) -> Any:
        value = self._body[name]
        self.read.add(name)
        return value

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._body)

    @override
    def __len__(self) -> int:
        return len(self._body)

    @property
    def unread(self) -> list[str]:
        """The fields that nobody has looked at, in the order of the request."""
        return [name for name in self._body if name not in self.read]

    def value_of(self, name: str) -> Any:
        """Return a field's value without looking at it; None if there is no such field."""
        return self._body.get(name)
