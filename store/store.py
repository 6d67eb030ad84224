"""What can be asked of the store, in our words. See `layout` for what it keeps."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from store.errors import StoreError
from store.identity import replica_name
from store.layout import CLUSTER_SHARDS, PAGES, VERSION, Layout, worker_name
from store.records import Garbage, JournalEntry, WorkerRecord
from store.server import Call
from store.write import JOURNAL_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from indexer import Worker
    from store.server import Server

_FENCE_SECONDS = 3600
_PAGES_AT_A_TIME = 64


class Acquired(NamedTuple):
    """What a worker's new owner finds. former: the generation to be read, if it is another."""

    epoch: int
    generation: str
    revision: int
    state: bytes
    former: str


class ShardStatus(NamedTuple):
    """What one shard knows of the workers at home there. newest: id of the last journal entry.

    applied: of every worker that has been written here, what was last. registry: of slots.
    """

    records: dict[str, WorkerRecord]
    reports: dict[str, bytes]
    newest: bytes
    garbage: list[Garbage]
    applied: dict[str, str]
    registry: str


class Store:
    """One namespace of a server. Every method raises StoreError."""

    def __init__(
        self,
        server: Server,
        namespace: str = "kvatlas",
        version: int = VERSION,
        shards: int | None = None,
    ) -> None:
        self.server = server
        usual = CLUSTER_SHARDS if server.address.is_cluster else 1
        self.layout = Layout(namespace, shards or usual, version)

    async def register_layout(self) -> dict[int, int]:
        """Make the layout known; returns the shards of every version that was ever used here."""
        key = f"{self.layout.namespace}:layout"
        _, versions = await self.server.layout_record(key, self.layout.version, self.layout.shards)
        return versions

    async def forget_layout(self) -> None:
        """Nobody uses this version any more."""
        key = f"{self.layout.namespace}:layout"
        await self.server.forget_layout(key, self.layout.version)

    async def call(self, script: str, shard: int, *arguments: str | bytes | int) -> Any:
        """Run one script."""
        return await self.server.call(self.layout, Call(script, shard, arguments))

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run several in one parallel round trip; a StoreError in the place of each that failed."""
        return await self.server.call_all(self.layout, calls)

    # Replicas

    async def heartbeat(self, replica: str, lease: float, *, first: bool = False) -> list[str]:
        """`replica` ("": nobody) is live for `lease` seconds; who else is.

        first: nobody else of its name is, any more.
        """
        former = f"{replica_name(replica)}#" if first else ""
        live = await self.call("beat", 0, replica, round(lease * 1000), former)
        return [name.decode() for name in live]

    async def deregister(self, replica: str) -> None:
        """`replica` is live no more."""
        await self.call("retreat", 0, replica)

    # Owners

    async def acquire(
        self, worker: Worker, model: str, replica: str, live: Collection[str], *, afresh: bool
    ) -> Acquired | str:
        """Become the worker's owner; or the name of the live replica that is."""
        when = "always" if afresh else "unreleased" if self.layout.shards > 1 else "needed"
        answer = await self.call(
            "acquire",
            self.layout.home(worker),
            worker_name(worker),
            model,
            replica,
            secrets.token_hex(4),
            when,
            *live,
        )
        if answer[0] == b"HELD":
            return str(answer[1].decode())
        _, epoch, generation, revision, state, former = answer
        return Acquired(int(epoch), generation.decode(), int(revision), state, former.decode())

    async def release(self, worker: Worker, replica: str) -> None:
        """Let go of a worker of which everything is written, or nothing was begun."""
        await self.call("release", self.layout.home(worker), worker_name(worker), replica)

    async def remove_worker(self, worker: Worker, epoch: int | None) -> bool:
        """The worker never was; epoch: None for whoever its owner is. False if it was not known."""
        answer = await self.call(
            "leave",
            self.layout.home(worker),
            worker_name(worker),
            "" if epoch is None else epoch,
            JournalEntry(worker, removed=True).pack(),
            JOURNAL_ENTRIES,
            _FENCE_SECONDS,
            int(epoch is not None or self.layout.shards == 1),
        )
        return bool(answer[0] == b"OK")

    async def post_request(self, worker: Worker, wish: str) -> None:
        """Tell the worker's owner of a wish."""
        await self.call("wish", self.layout.home(worker), worker_name(worker), wish)

    async def renew_reports(self, reports: dict[Worker, tuple[int, bytes]]) -> dict[str, str]:
        """Renew the reports (epoch and report) of owned workers; wishes by worker's name."""
        by_home: dict[int, list[str | bytes | int]] = {}
        for worker, (epoch, report) in reports.items():
            of_home = by_home.setdefault(self.layout.home(worker), [])
            of_home += [worker_name(worker), epoch, report]
        calls = [Call("sign", home, tuple(of)) for home, of in by_home.items()]
        wishes: dict[str, str] = {}
        for answer in all_of(await self.call_all(calls)):
            for name, wish in zip(answer[::2], answer[1::2], strict=True):
                wishes[name.decode()] = wish.decode()
        return wishes

    # What is there

    async def shard_statuses(self) -> list[ShardStatus]:
        """What every shard knows, in order."""
        shards = range(self.layout.shards)
        answers = all_of(await self.call_all([Call("bulletin", shard) for shard in shards]))
        return [_bulletin(shard, answer) for shard, answer in zip(shards, answers, strict=True)]

    async def handover_state(self, worker: Worker) -> bytes:
        """What the worker's owner has left for the next one; empty if there is nothing."""
        state: bytes = await self.call("state", self.layout.home(worker), worker_name(worker))
        return state

    async def read_generation(self, home: int, generation: str) -> Iterator[tuple[bytes, bytes]]:
        """All names of a generation with their rows. Not at one moment: see the journal."""
        found: list[bytes] = []
        for first in range(0, PAGES, _PAGES_AT_A_TIME):
            found += await self.read_pages(home, generation, first, first + _PAGES_AT_A_TIME - 1)
        return zip(found[::2], found[1::2], strict=True)

    async def read_pages(self, home: int, generation: str, first: int, last: int) -> list[bytes]:
        """Names and rows in turn, of the pages from `first` to `last`."""
        found: list[bytes] = await self.call("pages", home, generation, first, last)
        return found

    async def allocate_bits(self, model: str, labels: Sequence[str]) -> tuple[str, list[int]]:
        """The registry, and the slot of each label."""
        registry, slots = await self.call("allot", 0, model, secrets.token_hex(2), *labels)
        return registry.decode(), slots

    async def free_bits(self, model: str, labels: Sequence[str]) -> None:
        """The slots of these labels may be allotted again."""
        await self.call("free", 0, model, "", *labels)

    async def free_generation_bits(self, model: str, generation: str) -> None:
        """All slots of a generation may be allotted again."""
        await self.call("free", 0, model, f"{generation}:")


def _bulletin(shard: int, answer: Any) -> ShardStatus:
    standings, reports, newest, garbage, applied, registry = answer
    return ShardStatus(
        {name.decode(): WorkerRecord.unpack(blob) for name, blob in _pairs(standings)},
        {name.decode(): blob for name, blob in _pairs(reports)},
        newest,
        [Garbage.unpack(name, shard, blob) for name, blob in _pairs(garbage)],
        {name.decode(): stamp.decode() for name, stamp in _pairs(applied)},
        registry.decode(),
    )


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def all_of(answers: list[Any]) -> list[Any]:
    """The answers, if none of them is an error; else raises the first."""
    for answer in answers:
        if isinstance(answer, StoreError):
            raise answer
    return answers
