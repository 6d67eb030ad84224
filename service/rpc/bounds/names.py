"""The length of a name in a request."""

from __future__ import annotations

from service.rpc.errors import TooLargeError


def check_name(field: str, name: str, limit: int) -> None:
    """Raise TooLargeError if the name in `field` is longer than `limit` bytes."""
    if len(name) * 4 > limit and len(name.encode()) > limit:
        raise TooLargeError(f"{field} is longer than the limit of {limit} bytes", "name_bytes")
