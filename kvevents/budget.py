"""Bytes that several owners share, within a limit."""

from __future__ import annotations


class Budget:
    """Memory for everything that has to wait: frames for a replay, blocks for their parents."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes; False if there is no room for them."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Give back `size` bytes that were reserved."""
        self.used -= size

    def __repr__(self) -> str:
        return f"<Budget {self.used:,} of {self.limit:,} bytes>"
