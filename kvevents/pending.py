"""Frames of workers whose owner is not known yet, where several replicas share an index."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection
    from collections.abc import Set as AbstractSet

    from indexer import Worker
    from kvevents.budget import Budget
    from kvevents.source import Source
    from kvevents.transport import Frame
    from kvevents.wire import Batch


class Owner(Enum):
    """Which replica applies a worker's events."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    PENDING = "pending"
    """Not known yet: frames are kept until `FrameRouter.on_acquired` or `on_refused` is called."""


class Ownership(Protocol):
    """Decides whose events this process applies."""

    @property
    def owns_everything(self) -> bool:
        """Whether this process applies the events of all workers, at once."""
        ...

    def owner_of(self, worker: Worker, model: str, source: Source) -> Owner:
        """Which replica applies the events of a worker without a stream here."""
        ...

    def on_left(self, worker: Worker) -> None:
        """The stream of a worker that was owned here was removed, with everything it holds."""
        ...

    def on_evicted(self, worker: Worker) -> None:
        """A worker that is owned elsewhere has lost blocks here to the memory limit."""
        ...

    def on_source_removed(self, source: Source) -> Collection[Worker]:
        """Nothing more is received from a source; returns the workers whose frames were kept."""
        ...


class OwnsEverything(Ownership):
    """The ownership of a process that shares its index with nobody."""

    @property
    @override
    def owns_everything(self) -> bool:
        return True

    @override
    def owner_of(self, worker: Worker, model: str, source: Source) -> Owner:
        return Owner.HERE

    @override
    def on_left(self, worker: Worker) -> None:
        pass

    @override
    def on_evicted(self, worker: Worker) -> None:
        pass

    @override
    def on_source_removed(self, source: Source) -> Collection[Worker]:
        return ()


_FRAME_BYTES = 500  # of a frame without its payload and its events


class PendingFrame(NamedTuple):
    """A frame that waits for its worker's owner."""

    source: Source
    frame: Frame
    batch: Batch | None
    """None if its payload could not be decoded."""
    connection: int

    @property
    def size(self) -> int:
        """About how many bytes it occupies."""
        events = 0 if self.batch is None else self.batch.size
        return _FRAME_BYTES + len(self.frame.topic) + len(self.frame.payload) + events


class PendingFrames:
    """Keeps frames in the order in which they came.

    Args:
        budget: memory for them, shared with everything else that waits.
        dropped: counts the frames that were not kept, by reason.
    """

    def __init__(self, budget: Budget, dropped: Counter[str]) -> None:
        self._budget = budget
        self._frames: dict[Worker, list[PendingFrame]] = {}
        self._incomplete: set[Worker] = set()
        """Workers of which a frame was dropped."""
        self.dropped = dropped

    def add(self, worker: Worker, frame: PendingFrame) -> None:
        """Keep a frame if there is room for it."""
        if self._budget.reserve(frame.size):
            self._frames.setdefault(worker, []).append(frame)
        else:
            self.dropped["pending_frames_full"] += 1
            self._incomplete.add(worker)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._frames

    def connection_of(self, worker: Worker, live: AbstractSet[int], source: Source) -> int | None:
        """The connection through which all of the worker's frames come, or would come.

        Args:
            worker: the worker.
            live: the connections of its source that are up.
            source: where they come from; if it is bound, the worker's frames tell the connection.

        None if there is none, or if frames were dropped.
        """
        if worker in self._incomplete:
            return None
        if not source.bind:
            return next(iter(live), None)
        frames = self._frames.get(worker, [])
        return frames[-1].connection if frames and frames[-1].connection in live else None

    def pop(self, worker: Worker) -> list[PendingFrame]:
        """Remove and return the frames of a worker."""
        frames = self._frames.pop(worker, [])
        self._incomplete.discard(worker)
        for frame in frames:
            self._budget.release(frame.size)
        return frames

    def drop(self, worker: Worker) -> None:
        """Drop the frames of a worker that another replica owns."""
        self.dropped["owned_elsewhere"] += len(self.pop(worker))
