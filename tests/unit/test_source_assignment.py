"""To whom the workers of a source are released."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from indexer import Worker
from kvevents import Source
from service.replication.handover import OwnershipRequests, SourceAssignment, WaitingOwners
from store import new_replica_id

WORKER, SOURCE = Worker("10.0.0.1:8000", 0), Source("tcp://10.0.0.1:5557")


class Here:
    """A replica that leaves, and the only worker it has."""

    def __init__(self, others: list[str]) -> None:
        self.released_to: list[str] = []
        membership: Any = SimpleNamespace(
            name="here", staying_names=["a"], is_leaving=True, is_staying=others.__contains__
        )
        self._streams = {WORKER: SimpleNamespace(source=SOURCE)}
        listener: Any = SimpleNamespace(
            sources={SOURCE: None},
            router=SimpleNamespace(streams=self._streams, release=print),
            stop_listening=self._stop_listening,
        )
        store: Any = None
        follower: Any = None
        ownership: Any = SimpleNamespace(release=self._release)
        self.waiting = WaitingOwners(store, "here")
        requests = OwnershipRequests(membership)
        self.assignment = SourceAssignment(
            listener, membership, requests, follower, ownership, self.waiting
        )

    async def _stop_listening(self, _source: Source) -> None:
        pass

    async def _release(self, worker: Worker, _stop_stream: object, successor: str) -> bool:
        del self._streams[worker]
        self.released_to.append(successor)
        return True


async def test_a_worker_waits_for_the_next_process_of_a_name_where_one_has_left() -> None:
    former, latter = (new_replica_id("a") for _ in range(2))
    here = Here([latter])
    here.waiting.read(WORKER, f"kept_by {former}/1")
    await here.assignment.assign_sources()
    assert here.released_to == []
    here.waiting.read(WORKER, f"kept_by {latter}/1")
    await here.assignment.assign_sources()
    assert here.released_to == [latter]
