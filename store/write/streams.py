"""What the writer asks about the event streams of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from indexer import TrustStatus, Worker


class Streams(Protocol):
    """The event streams of this replica's workers."""

    def trust_status(self, worker: Worker) -> TrustStatus:
        """Return how far the worker can be trusted."""
        ...

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        """Return what the next owner needs to resume the stream, None if none can."""
        ...

    def on_fenced(self, worker: Worker) -> None:
        """End the stream: another replica owns the worker now."""
        ...
