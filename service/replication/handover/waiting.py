"""Overlapping subscriptions: the next owner of a worker keeps its frames before the last one ends.

The next owner subscribes while the owner still applies events. Once the subscription has been up
for a moment, it leaves a note at the store: from here on it keeps every frame. The owner hands over
with that note in the state of the stream. So the next owner knows that nothing can be missing
between that state and the frames that it has kept, as long as the connection is the same one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from store import replica_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import Worker
    from store import Store

_NOTE = "kept_by "
_SUBSCRIBED_SECONDS = 0.5  # after which a publisher has certainly heard of a subscription
_REPEAT_SECONDS = 1.0  # a note may be lost, or another request may have taken its place
_VALID_SECONDS = 3.0  # who keeps frames says so again and again


class _Waiting(NamedTuple):
    connection: int
    since: float
    number: int


class WaitingOwners:
    """The notes that this replica leaves, and those that it finds.

    Args:
        store: where notes are left.
        replica: identity of this replica.
        now: the time in seconds.

    Attributes:
        kept_by: of this replica's workers, the last note of a replica that keeps their frames.
    """

    def __init__(
        self, store: Store, replica: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.kept_by: dict[Worker, str] = {}
        self._kept_at: dict[Worker, float] = {}
        self._store = store
        self._replica = replica
        self._now = now
        self._waiting: dict[Worker, _Waiting] = {}
        self._left_at: dict[Worker, float] = {}
        self._notes = 0

    # As the next owner

    async def wait_for(self, worker: Worker, connection: int | None) -> None:
        """Another replica owns a worker that this one wants, and whose frames it keeps.

        connection: through which they come; None: there is none yet.

        Raises StoreError.
        """
        now, waiting = self._now(), self._waiting.get(worker)
        if connection is None:
            self.forget(worker)
            return
        if waiting is None or waiting.connection != connection:
            self._notes += 1
            self._waiting[worker] = _Waiting(connection, now, self._notes)
            self._left_at.pop(worker, None)
            return
        is_due = now - self._left_at.get(worker, -_REPEAT_SECONDS) >= _REPEAT_SECONDS
        if now - waiting.since >= _SUBSCRIBED_SECONDS and is_due:
            self._left_at[worker] = now
            await self._store.request(worker, _NOTE + self._note(waiting), if_none=True)

    def note_of(self, worker: Worker, connection: int | None) -> str:
        """The note that was left for a worker, if it holds for the connection; else empty."""
        waiting = self._waiting.get(worker)
        if waiting is None or waiting.connection != connection or worker not in self._left_at:
            return ""
        return self._note(waiting)

    def is_next(self, worker: Worker) -> bool:
        """Whether this replica keeps the frames of a worker that it is about to acquire."""
        waiting = self._waiting.get(worker)
        return (
            waiting is not None
            and worker in self._left_at
            and self._now() - waiting.since < _VALID_SECONDS
        )

    def _note(self, waiting: _Waiting) -> str:
        return f"{self._replica}/{waiting.number}"

    def forget(self, worker: Worker) -> None:
        """The worker's frames are not kept any more, or it was acquired."""
        self._waiting.pop(worker, None)
        self._left_at.pop(worker, None)

    # As the owner

    @staticmethod
    def is_note(request: str) -> bool:
        """Whether a request is a note rather than a wish."""
        return request.startswith(_NOTE)

    def read(self, worker: Worker, note: str) -> None:
        """Take in who keeps the frames of a worker; what came before has been applied."""
        self.kept_by[worker] = note.removeprefix(_NOTE)
        self._kept_at[worker] = self._now()

    def successor_of(self, worker: Worker, names: Collection[str]) -> str:
        """The replica with one of these names that keeps the frames of a worker of this one.

        Returns its identity, or "" if there is none.
        """
        identity, _, _ = self.kept_by.get(worker, "").rpartition("/")
        is_new = self._now() - self._kept_at.get(worker, -_VALID_SECONDS) < _VALID_SECONDS
        return identity if is_new and replica_name(identity) in names else ""

    def released(self, worker: Worker) -> None:
        """The worker is not this replica's any more."""
        self.kept_by.pop(worker, None)
        self._kept_at.pop(worker, None)
