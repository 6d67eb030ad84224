"""Frames of workers of which it is not known yet whether this replica is to apply them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from indexer import Worker
    from kvevents.budget import Budget
    from kvevents.events import Batch
    from kvevents.frame import Frame
    from kvevents.source import Source


class Custody(Protocol):
    """Knows whose events this replica applies, where several replicas share an index."""

    def asks(self, worker: Worker, model: str, source: Source) -> bool:
        """Whether it may be ours; if so `Ingest.admit` or `Ingest.refuse` comes by and by."""
        ...

    def left(self, worker: Worker) -> None:
        """The worker has departed, or serves another model."""
        ...

    def evicted(self, worker: Worker) -> None:
        """A worker whose events are applied elsewhere has lost blocks here to the memory bound."""
        ...


class Waiting(NamedTuple):
    """A frame that waits. batch: None if its payload could not be decoded."""

    source: Source
    frame: Frame
    batch: Batch | None
    connection: int


class Lobby:
    """Holds frames in the order in which they came, within `budget`. dropped: frames, by reason."""

    def __init__(self, custody: Custody, budget: Budget) -> None:
        self.custody = custody
        self._budget = budget
        self._waiting: dict[Worker, list[Waiting]] = {}
        self.dropped: Counter[str] = Counter()

    def ask(self, worker: Worker, model: str, source: Source) -> None:
        """The worker is expected to speak."""
        self.custody.asks(worker, model, source)

    def enter(self, worker: Worker, model: str, waiting: Waiting) -> None:
        """Hold a frame, unless another replica applies it or there is no room for it."""
        if not self.custody.asks(worker, model, waiting.source):
            self.dropped["owned_elsewhere"] += 1
        elif self._budget.take(len(waiting.frame.payload)):
            self._waiting.setdefault(worker, []).append(waiting)
        else:
            self.dropped["no_room_in_lobby"] += 1

    def leave(self, worker: Worker) -> list[Waiting]:
        """The frames of a worker, to be applied now."""
        waiting = self._waiting.pop(worker, [])
        for each in waiting:
            self._budget.give_back(len(each.frame.payload))
        return waiting

    def drop(self, worker: Worker) -> None:
        """Another replica applies them."""
        self.dropped["owned_elsewhere"] += len(self.leave(worker))
