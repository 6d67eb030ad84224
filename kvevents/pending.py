"""Frames of workers of which it is not known yet whether this replica is to apply them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from indexer import Worker
    from kvevents.budget import Budget
    from kvevents.source import Source
    from kvevents.transport import Frame
    from kvevents.wire import Batch


class Ownership(Protocol):
    """Knows whose events this replica applies, where several replicas share an index."""

    def should_buffer(self, worker: Worker, model: str, source: Source) -> bool:
        """Whether it may be ours; if so `FrameRouter.admit` or `FrameRouter.refuse` comes by and by."""
        ...

    def on_left(self, worker: Worker) -> None:
        """The worker has departed, or serves another model."""
        ...

    def on_evicted(self, worker: Worker) -> None:
        """A worker whose events are applied elsewhere has lost blocks here to the memory bound."""
        ...


class PendingFrame(NamedTuple):
    """A frame that waits. batch: None if its payload could not be decoded."""

    source: Source
    frame: Frame
    batch: Batch | None
    connection: int


class PendingFrames:
    """Holds frames in the order in which they came, within `budget`. dropped: frames, by reason."""

    def __init__(self, custody: Ownership, budget: Budget) -> None:
        self.ownership = custody
        self._budget = budget
        self._frames: dict[Worker, list[PendingFrame]] = {}
        self.dropped: Counter[str] = Counter()

    def expect(self, worker: Worker, model: str, source: Source) -> None:
        """The worker is expected to speak."""
        self.ownership.should_buffer(worker, model, source)

    def add(self, worker: Worker, model: str, waiting: PendingFrame) -> None:
        """Hold a frame, unless another replica applies it or there is no room for it."""
        if not self.ownership.should_buffer(worker, model, waiting.source):
            self.dropped["owned_elsewhere"] += 1
        elif self._budget.reserve(len(waiting.frame.payload)):
            self._frames.setdefault(worker, []).append(waiting)
        else:
            self.dropped["no_room_in_lobby"] += 1

    def pop(self, worker: Worker) -> list[PendingFrame]:
        """The frames of a worker, to be applied now."""
        waiting = self._frames.pop(worker, [])
        for each in waiting:
            self._budget.release(len(each.frame.payload))
        return waiting

    def drop(self, worker: Worker) -> None:
        """Another replica applies them."""
        self.dropped["owned_elsewhere"] += len(self.pop(worker))
