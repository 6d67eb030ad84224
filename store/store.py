"""What replicas ask of the store, in the words of this project. `layout` has the keys."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from store import scripts
from store.errors import Failures, StoreError, decoding
from store.identity import replica_name
from store.layout import CLUSTER_SHARDS, JOURNAL_ENTRIES, PAGES, VERSION, Layout, worker_name
from store.records import MAX_STATE_BYTES, JournalEntry, ShardStatus, StatusDecoder, pairs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from indexer import Worker
    from store.scripts import Call, Script
    from store.server import Server

_RESERVED_SECONDS = 3.0  # a released worker's successor has so long to acquire it
_FENCE_SECONDS = 3600
_PAGES_AT_ONCE = 64
_MAX_SHARDS = 1024
_LOST_BITS = "MALFORMED bits"  # what scripts say of bitmaps

_log = structlog.get_logger("kvatlas.store")


class Heartbeat(NamedTuple):
    """What a replica learns as it renews its lease."""

    live: frozenset[str]
    """The identities of the live replicas."""
    had_lease: bool
    """Whether the replica had a lease until now; if not, it ran out or the store has lost it."""


@dataclass(frozen=True)
class Acquired:
    """This replica owns the worker."""

    epoch: int
    generation: str
    revision: int
    state: bytes
    """The `HandoverState` of its last owner; empty if there is none."""
    former_generation: str
    """The generation that has the worker's rows; empty if it is `generation`."""


@dataclass(frozen=True)
class HeldBy:
    """Another replica, which is live, owns the worker."""

    replica: str


class Store:
    """One namespace of a server. Every method that calls the server raises StoreError.

    Values that cannot be decoded are left out of what is returned, and counted: their owners write
    them again once they see that the store has lost them.
    """

    def __init__(
        self,
        server: Server,
        namespace: str = "kvatlas",
        version: int = VERSION,
        shards: int | None = None,
    ) -> None:
        self.server = server
        default_shards = CLUSTER_SHARDS if server.address.is_cluster else 1
        self.layout = Layout(namespace, shards or default_shards, version)
        self.malformed: Counter[str] = Counter()
        """Values left out, by what they should have been."""
        self.failures = Failures()
        """The same as failures."""

    async def register_layout(self) -> dict[int, int]:
        """Register this version; return every registered version with its number of shards."""
        key, version = self.layout.versions_key, str(self.layout.version)
        await self.server.execute("HSETNX", key, version, self.layout.shards)
        flat = await self.server.execute("HGETALL", key)
        versions = {}
        for known, shards in flat.items() if isinstance(flat, dict) else pairs(flat):
            try:
                with decoding("layout"):
                    versions[int(known)] = min(int(shards), _MAX_SHARDS)
            except StoreError as error:
                self._on_malformed("layout", error)
                await self.server.execute("HDEL", key, known)
        return versions

    async def forget_layout(self) -> None:
        """Unregister this version, which no replica uses any more."""
        await self.server.execute("HDEL", self.layout.versions_key, str(self.layout.version))

    async def call(self, script: Script, shard: int) -> Any:
        """Run one script and return its answer."""
        (answer,) = all_succeeded(await self.call_all([script.at(shard)]))
        return answer

    async def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one parallel round trip; return a StoreError for each that failed."""
        answers = await self.server.call_all(self.layout, calls)
        for (_, script), answer in zip(calls, answers, strict=True):
            if isinstance(answer, StoreError) and _LOST_BITS in str(answer):
                self._on_malformed("bits", answer)
                with suppress(StoreError):  # who asked has an error already, and asks again
                    await self.lose_registry(getattr(script, "registry", ""))
                break
        return answers

    def _on_malformed(self, what: str, error: StoreError) -> None:
        if not self.malformed[what]:
            _log.warning("value_malformed", what=what, detail=str(error))
        self.malformed[what] += 1
        self.failures.record(error)

    # Replicas

    async def heartbeat(self, replica: str, lease: float, *, first: bool = False) -> Heartbeat:
        """Renew a replica's lease, and learn which replicas are live.

        Args:
            replica: identity; empty only asks.
            lease: seconds.
            first: whether it is the first heartbeat of this process, which ends the leases of
                former processes of the same name.
        """
        replaced = f"{replica_name(replica)}#" if first else ""
        script = scripts.HeartbeatReplica(replica, round(lease * 1000), replaced)
        had_lease, live = await self.call(script, 0)
        names = frozenset(name.decode(errors="replace") for name in live)
        return Heartbeat(names, bool(had_lease))

    async def deregister(self, replica: str) -> None:
        """End a replica's lease."""
        await self.server.execute("HDEL", self.layout.prefix(0) + "replicas", replica)

    # Owners

    async def acquire(
        self, worker: Worker, model: str, replica: str, live: Collection[str], *, fresh: bool
    ) -> Acquired | HeldBy:
        """Make a replica the owner of a worker, unless one of `live` owns it.

        fresh: begin a new generation, whatever there is.

        On a cluster a new generation is begun too if the last owner did not release the worker: its
        bits may still be in flight to other shards.
        """
        shards = self.layout.shards
        script = scripts.AcquireWorker(
            worker=worker_name(worker),
            model=model,
            replica=replica,
            unused_generation=secrets.token_hex(4),
            begin_generation="always" if fresh else "unreleased" if shards > 1 else "needed",
            live_replicas=list(live),
            shards=shards,
        )
        answer = await self.call(script, self.layout.home(worker))
        if answer[0] == b"HELD":
            return HeldBy(answer[1].decode())
        _, epoch, generation, revision, state, former = answer
        return Acquired(int(epoch), generation.decode(), int(revision), state, former.decode())

    async def release(self, worker: Worker, replica: str, successor: str = "") -> None:
        """End a replica's ownership, once everything is written or nothing was begun.

        successor: the live replica that alone may acquire it during the next seconds; empty: any.
        """
        reserved = round(_RESERVED_SECONDS * 1000)
        script = scripts.ReleaseWorker(worker_name(worker), replica, successor, reserved)
        await self.call(script, self.layout.home(worker))

    async def remove_worker(
        self,
        worker: Worker,
        epoch: int | None,
        *,
        settled: bool = False,
        spared: Collection[str] = (),
    ) -> bool:
        """Remove a worker and everything known of it.

        Args:
            epoch: of its owner; None: any.
            settled: whether every write of the owner was answered, so that none can arrive later.
            spared: replicas; a worker that one of these owns stays.

        Returns False if the worker is not known, or stays because of its epoch or owner.
        """
        script = scripts.RemoveWorker(
            worker=worker_name(worker),
            epoch="" if epoch is None else epoch,
            entry=JournalEntry(worker, removed=True).pack(),
            entries_kept=JOURNAL_ENTRIES,
            fence_seconds=_FENCE_SECONDS,
            reusable=int(settled or self.layout.shards == 1),
            spared=list(spared),
        )
        return bool((await self.call(script, self.layout.home(worker)))[0] == b"OK")

    async def request(self, worker: Worker, what: str, *, if_none: bool = False) -> None:
        """Ask the worker's owner for something; it takes that when it renews its report.

        if_none: only if nothing is asked already. Whoever says so has to ask again and again.
        """
        key = self.layout.prefix(self.layout.home(worker)) + "requests"
        command = "HSETNX" if if_none else "HSET"
        await self.server.execute(command, key, worker_name(worker), what)

    async def renew_reports(self, reports: dict[Worker, tuple[int, bytes]]) -> dict[str, str]:
        """Renew reports, each with its owner's epoch; return requests by worker's name."""
        by_home: dict[int, list[tuple[str, str, bytes]]] = {}
        for worker, (epoch, report) in reports.items():
            renewed = (worker_name(worker), str(epoch), report)
            by_home.setdefault(self.layout.home(worker), []).append(renewed)
        calls = [scripts.RenewReports(renewed).at(home) for home, renewed in by_home.items()]
        return {
            name.decode(errors="replace"): request.decode(errors="replace")
            for answer in all_succeeded(await self.call_all(calls))
            for name, request in pairs(answer)
        }

    # Reading

    async def shard_statuses(self) -> list[ShardStatus]:
        """Return the status of every shard, in order."""
        calls = [scripts.ReadShardStatus().at(shard) for shard in range(self.layout.shards)]
        answers = all_succeeded(await self.call_all(calls))
        decoders = [StatusDecoder(shard) for shard in range(self.layout.shards)]
        statuses = [each.decode(answer) for each, answer in zip(decoders, answers, strict=True)]
        for what, error in (error for decoder in decoders for error in decoder.errors):
            self._on_malformed(what, error)
        mending = [call for decoder in decoders for call in decoder.mending_calls()]
        if mending:
            all_succeeded(await self.call_all(mending))
        return statuses

    async def handover_state(self, worker: Worker) -> bytes:
        """Return the packed `HandoverState` of a worker; empty if there is none."""
        key = self.layout.record_key(worker)
        if await self.server.execute("HSTRLEN", key, "state") > MAX_STATE_BYTES:
            detail = f"the handover state of {worker_name(worker)} is too long"
            raise StoreError("malformed", detail)
        return await self.server.execute("HGET", key, "state") or b""

    async def read_generation(self, home: int, generation: str) -> Iterator[tuple[bytes, bytes]]:
        """Return all names of a generation with their rows.

        Its pages are read one after the other: what is written meanwhile may be missing, and is in
        the journal.
        """
        names_and_rows: list[bytes] = []
        for first in range(0, PAGES, _PAGES_AT_ONCE):
            last = first + _PAGES_AT_ONCE - 1
            names_and_rows += await self.read_pages(home, generation, first, last)
        return pairs(names_and_rows)

    async def read_pages(self, home: int, generation: str, first: int, last: int) -> list[bytes]:
        """Return names and rows in turn, of the pages from `first` to `last`."""
        return list(await self.call(scripts.ReadPages(generation, first, last), home))

    # Bits

    async def lose_registry(self, registry: str) -> None:
        """End a registry some bits of which are lost: all owners write their workers again."""
        await self.call(scripts.LoseRegistry(registry), 0)

    async def allocate_bits(self, model: str, labels: Sequence[str]) -> tuple[str, list[int]]:
        """Return the registry, and the bit of each label."""
        script = scripts.AllocateBits(model, secrets.token_hex(2), labels)
        registry, bits = await self.call(script, 0)
        return registry.decode(), bits

    async def free_bits(self, model: str, labels: Sequence[str]) -> None:
        """Free the bits of labels, so that they are allocated again."""
        await self.call(scripts.FreeBits(model, "", labels), 0)

    async def free_generation_bits(self, model: str, generation: str) -> None:
        """Free all bits of a generation."""
        await self.call(scripts.FreeBits(model, f"{generation}:", ()), 0)


def all_succeeded(answers: list[Any]) -> list[Any]:
    """Return the answers if none of them is an error, else raise the first."""
    for answer in answers:
        if isinstance(answer, StoreError):
            raise answer
    return answers
