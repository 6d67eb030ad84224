"""Cuts what a watch sends into lines: chunks of HTTP end anywhere."""

from __future__ import annotations

from service.discovery.kubernetes.failures import ApiFailure, Reason


class LineBuffer:
    """The lines of a stream; keeps the beginning of the line that is not complete.

    Args:
        limit: bytes of a line, at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    @property
    def is_within_line(self) -> bool:
        """Whether a line has begun that is not complete."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that the chunk completes, without those that are empty.

        Raises:
            ApiFailure: a line is too long.
        """
        *complete, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        for line in complete:
            self._extend(line)
            if self._rest.strip():
                lines.append(bytes(self._rest))
            self._rest.clear()
        self._extend(rest)
        return lines

    def _extend(self, part: bytes) -> None:
        if len(self._rest) + len(part) > self._limit:
            self._rest.clear()
            raise ApiFailure(
                Reason.TOO_LARGE, f"an event of more than {self._limit} bytes", is_stale=True
            )
        self._rest += part
