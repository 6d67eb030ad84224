"""Workers change hands: this replica takes one with all that is known of it, or gives it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from indexer import model_scope
from store.records import HandoverState
from store.write import OwnedWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import ReplicatedIndex, Worker
    from store.read import Follower
    from store.store import Acquired, Store
    from store.write import Writer


class Takeover(NamedTuple):
    """A worker that is this replica's now. dump: of its stream, None if it has to start anew."""

    dump: dict[str, Any] | None


class WorkerOwnership:
    """Who `writer` writes for, and who `copy` follows, is decided here. Raises StoreError.

    scheme_of: model -> what the scheme of its block keys is called. abandoned: workers that this
    replica may hold in the store although it does not want them.
    """

    def __init__(
        self,
        store: Store,
        index: ReplicatedIndex,
        writer: Writer,
        copy: Follower,
        replica: str,
        scheme_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._store = store
        self._index = index
        self._writer = writer
        self._follower = copy
        self._replica = replica
        self._scheme_of = scheme_of
        self.abandoned: set[Worker] = set()

    async def acquire(
        self, worker: Worker, model: str, endpoint: str, live: Collection[str]
    ) -> Takeover | str:
        """Become the worker's owner; the name of another replica if that is, and lives.

        endpoint: of the source it speaks through. The worker is in the index afterwards with what
        was in the store.
        """
        self._follower.own_workers.add(worker)
        self.abandoned.add(worker)  # unless all goes well
        try:
            owned = await self._store.acquire(worker, model, self._replica, live, afresh=False)
            if isinstance(owned, str):
                self._follower.own_workers.discard(worker)
                self.abandoned.discard(worker)
                return owned
            state = HandoverState.unpack(owned.state) if owned.state else None
            scheme = self._scheme_of(model)
            written = OwnedWorker(worker, model, model_scope(model), endpoint, scheme)
            if state is not None and state.stream is not None and state.scheme == scheme:
                await self._load_index(worker, model, owned, state)
            else:
                written.needs_rewrite = state is not None
                state = None
                self._index.leave(worker)
                self._index.join(worker, model)
        except BaseException:
            self._follower.own_workers.discard(worker)
            raise
        self._follower.release(worker)
        self.abandoned.discard(worker)
        self._writer.add(written, owned, state)
        return Takeover(None if state is None else state.stream)

    async def _load_index(
        self, worker: Worker, model: str, owned: Acquired, state: HandoverState
    ) -> None:
        """Have the worker in the index as its last owner has left it."""
        if not owned.former and self._follower.has_revision(
            worker, owned.generation, owned.revision
        ):
            return
        home = self._store.layout.home(worker)
        rows = await self._follower.read_rows(home, owned.former or owned.generation)
        self._index.leave(worker)
        self._index.join(worker, model)
        self._index.apply(worker, state.layout, state.holder_ids, *rows)

    async def release(self, worker: Worker, part_with: Callable[[], None]) -> bool:
        """Let another replica have the worker; False if not everything could be written yet.

        part_with: called once all is written; from then on no event of the worker is applied here.
        """
        of = self._writer.owned.get(worker)
        if of is None:
            part_with()
            return True
        if not await self._writer.write_all(of):
            return False
        if self._writer.remove(worker) is not of:
            return True
        part_with()
        standing = of.record
        if standing is None:
            self._follower.discard(worker)
        else:
            self._follower.adopt(worker, standing, of.revision)
        self.abandoned.add(worker)
        await self.release_abandoned()
        return True

    async def release_abandoned(self) -> None:
        """Let others have what may be held in this replica's name without being its."""
        for worker in list(self.abandoned):
            if worker not in self._follower.own_workers:
                await self._store.release(worker, self._replica)
                self.abandoned.discard(worker)

    def on_lost(self, worker: Worker) -> None:
        """Another replica has taken the worker; what is here of it may be too much."""
        self._follower.discard(worker)
