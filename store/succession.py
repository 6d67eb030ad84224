"""Workers change hands: this replica takes one with all that is known of it, or gives it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from indexer import model_scope
from store.flush import Written
from store.records import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from indexer import SharedIndex, Worker
    from store.copy import Copy
    from store.store import Owned, Store
    from store.writer import Writer


class Taken(NamedTuple):
    """A worker that is this replica's now. dump: of its stream, None if it has to start anew."""

    dump: dict[str, Any] | None


class Succession:
    """Who `writer` writes for, and who `copy` follows, is decided here. Raises StoreError.

    scheme_of: model -> what the scheme of its block keys is called. abandoned: workers that this
    replica may hold in the store although it does not want them.
    """

    def __init__(
        self,
        store: Store,
        index: SharedIndex,
        writer: Writer,
        copy: Copy,
        replica: str,
        scheme_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._store = store
        self._index = index
        self._writer = writer
        self._copy = copy
        self._replica = replica
        self._scheme_of = scheme_of
        self.abandoned: set[Worker] = set()

    async def take(
        self, worker: Worker, model: str, endpoint: str, live: Collection[str]
    ) -> Taken | str:
        """Become the worker's owner; the name of another replica if that is, and lives.

        endpoint: of the source it speaks through. The worker is in the index afterwards with what
        was in the store.
        """
        self._copy.ours.add(worker)
        self.abandoned.add(worker)  # unless all goes well
        try:
            owned = await self._store.acquire(worker, model, self._replica, live, afresh=False)
            if isinstance(owned, str):
                self._copy.ours.discard(worker)
                self.abandoned.discard(worker)
                return owned
            state = State.unpack(owned.state) if owned.state else None
            scheme = self._scheme_of(model)
            written = Written(worker, model, model_scope(model), endpoint, scheme)
            if state is not None and state.stream is not None and state.scheme == scheme:
                await self._learn(worker, model, owned, state)
            else:
                written.afresh = state is not None
                state = None
                self._index.leave(worker)
                self._index.join(worker, model)
        except BaseException:
            self._copy.ours.discard(worker)
            raise
        self._copy.hand_over(worker)
        self.abandoned.discard(worker)
        self._writer.own(written, owned, state)
        return Taken(None if state is None else state.stream)

    async def _learn(self, worker: Worker, model: str, owned: Owned, state: State) -> None:
        """Have the worker in the index as its last owner has left it."""
        if not owned.former and self._copy.holds(worker, owned.generation, owned.revision):
            return
        home = self._store.layout.home(worker)
        rows = await self._copy.read(home, owned.former or owned.generation)
        self._index.leave(worker)
        self._index.join(worker, model)
        self._index.put(worker, state.layout, state.seats, *rows)

    async def give_up(self, worker: Worker, part_with: Callable[[], None]) -> bool:
        """Let another replica have the worker; False if not everything could be written yet.

        part_with: called once all is written; from then on no event of the worker is applied here.
        """
        of = self._writer.owned.get(worker)
        if of is None:
            part_with()
            return True
        if not await self._writer.write_all(of):
            return False
        if self._writer.disown(worker) is not of:
            return True
        part_with()
        standing = of.standing
        if standing is None:
            self._copy.forget(worker)
        else:
            self._copy.take_back(worker, standing, of.revision)
        self.abandoned.add(worker)
        await self.release_abandoned()
        return True

    async def release_abandoned(self) -> None:
        """Let others have what may be held in this replica's name without being its."""
        for worker in list(self.abandoned):
            if worker not in self._copy.ours:
                await self._store.release(worker, self._replica)
                self.abandoned.discard(worker)

    def lost(self, worker: Worker) -> None:
        """Another replica has taken the worker; what is here of it may be too much."""
        self._copy.forget(worker)
