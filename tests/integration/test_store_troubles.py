"""What a real store can do to us: refuse, forget, be far away, be found in other ways."""

from __future__ import annotations

import asyncio
import json
import subprocess
from array import array
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.deadlines import DEADLINE_SECONDS
from support.given_keys import GivenKeys
from support.paths import DATA
from support.ports import free_port
from support.stores.certificates import make_certificates
from support.stores.servers import (
    StoreProcess,
    cluster_processes,
    patient_address,
    server_program,
    store_process,
)

from indexer import Place, ReplicatedIndex, TrustState, TrustStatus, Worker, model_scope
from store import (
    VERSION,
    Acquired,
    GarbageCollector,
    Lookup,
    OwnedWorker,
    Server,
    Store,
    StoreError,
    Writer,
    older_versions,
    parse_address,
    remove_layout,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MODEL = "m"
WORKER = Worker("a:1", 0)
KEYS = array("Q", range(1000, 1100))


class Owner:
    """A replica that owns one worker and does nothing but write and look it up."""

    def __init__(self, server: Server, version: int = VERSION, worker: Worker = WORKER) -> None:
        self.worker = worker
        self.store = Store(server, version=version)
        self.index = ReplicatedIndex(2**26)
        self.writer = Writer(self.store, self.index, "one", self)
        self.lookup = Lookup(self.store, {"gpu": 1.0})
        self.as_of = 0

    def trust_status(self, worker: Worker) -> TrustStatus:
        return TrustStatus(TrustState.EXACT, "", as_of=self.as_of)

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        return {}

    def on_fenced(self, worker: Worker) -> None:
        raise AssertionError(worker)

    async def acquire(self) -> None:
        owned = await self.store.acquire(self.worker, MODEL, "one", ["one"], fresh=False)
        assert isinstance(owned, Acquired)
        self.index.join(self.worker, MODEL)
        self.writer.add(OwnedWorker(self.worker, MODEL, model_scope(MODEL), ""), owned, None)

    def stored(self, first: int, count: int) -> None:
        self.as_of += 1
        hashes = array("Q", range(first + 1, first + 1 + count))
        self.index.store(self.worker, Place("gpu"), hashes, KEYS[first : first + count])

    async def matched(self) -> int:
        found = await self.lookup.match(MODEL, model_scope(MODEL), GivenKeys(KEYS))
        match = found.match.best_of(self.worker.pod)
        return -1 if match is None else match.matched_blocks

    async def until_written(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await self.writer.write_all(self.writer.owned[self.worker]):
                pass


@asynccontextmanager
async def running_owner(url: str, **more: Any) -> AsyncIterator[Owner]:
    """An owner connected to the store; `more`: parts of its address, a long timeout by default."""
    address = replace(parse_address(url), **{"timeout": DEADLINE_SECONDS / 4, **more})
    async with Server(address) as server:
        found = Owner(server)
        await found.acquire()
        yield found


@pytest.fixture
def redis() -> Iterator[StoreProcess]:
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        yield process


async def test_a_store_that_is_full_is_reported_and_survived(redis: StoreProcess) -> None:
    async with running_owner(redis.url) as owner:
        owner.stored(0, 10)
        await owner.until_written()
        with redis.client() as client:
            client.config_set("maxmemory", "1")
            owner.stored(10, 10)
            assert not await owner.writer.write()
            assert owner.writer.failing == "full"
            assert await owner.matched() == 10  # as it was, all of it
            client.config_set("maxmemory", "0")
        await owner.until_written()
        assert await owner.matched() == 20
        assert owner.writer.failures["full"] >= 1
        assert not owner.writer.failing


async def test_a_store_that_evicts_keys_is_detected(redis: StoreProcess) -> None:
    async with Server(patient_address(redis.url)) as server:
        assert not await server.drops_keys()
        with redis.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        assert await server.drops_keys() == "allkeys-lru"


async def test_a_store_that_is_read_only_is_reported_and_survived(redis: StoreProcess) -> None:
    async with running_owner(redis.url) as owner:
        owner.stored(0, 10)
        await owner.until_written()
        with redis.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", free_port())
            owner.stored(10, 10)
            assert not await owner.writer.write()
            assert owner.writer.failing == "read_only"
            client.execute_command("REPLICAOF", "NO", "ONE")
        await owner.until_written()
        assert await owner.matched() == 20


async def test_no_call_waits_for_a_store_that_is_stuck(redis: StoreProcess) -> None:
    async with running_owner(redis.url, timeout=1.0) as owner:
        owner.stored(0, 10)
        await owner.until_written()
        redis.pause()
        async with asyncio.timeout(DEADLINE_SECONDS):  # the store is stuck all the while
            with pytest.raises(StoreError) as raised:
                await owner.matched()
            assert raised.value.kind == "timeout"
            owner.stored(10, 10)
            assert not await owner.writer.write()
        redis.resume()
        await owner.until_written()
        assert await owner.matched() == 20


async def test_a_store_that_comes_back_empty_is_filled_again(redis: StoreProcess) -> None:
    async with running_owner(redis.url) as owner:
        owner.stored(0, 10)
        await owner.until_written()
        redis.kill()
        with pytest.raises(StoreError) as raised:
            await owner.matched()
        assert raised.value.kind == "unreachable"
        owner.stored(10, 10)
        assert not await owner.writer.write()
        redis.start()
        await owner.until_written()
        assert await owner.matched() == 20


async def test_bits_of_a_lost_registry_are_given_to_no_other_worker(redis: StoreProcess) -> None:
    async with running_owner(redis.url) as first:
        first.stored(0, 10)
        await first.until_written()
        with redis.client() as client:  # as where a cluster has lost one server of several
            names = [name for name in client.keys("*") if b":bits:" in name]
            names += [name for name in client.keys("*") if b":taken_bits:" in name]
            client.delete(*names, *client.keys("*:registry"))
        second = Owner(first.store.server, worker=Worker("0:1", 0))
        await second.acquire()
        second.stored(0, 20)
        await second.until_written()
        found = await first.lookup.match(MODEL, model_scope(MODEL), GivenKeys(KEYS))
        slots = [list(record.places) for record in found.records.values()]
        assert slots[0] == slots[1]
        assert found.in_flight == {WORKER}  # whose owner has not found out yet
        assert await second.matched() == 20
        await first.writer.verify()
        await first.until_written()
        assert (await first.matched(), await second.matched()) == (10, 20)


async def test_a_worker_that_is_written_again_gives_its_bits_back(redis: StoreProcess) -> None:
    async with running_owner(redis.url) as owner:
        cleaner = GarbageCollector(owner.store, owner.index, owner.writer)
        taken = []
        for first in (0, 10, 20):
            owner.stored(first, 10)
            await owner.until_written()
            (status,) = await owner.store.shard_statuses()
            for garbage in status.garbage:
                await cleaner.collect(garbage)
            with redis.client() as client:
                taken.append(client.bitcount(f"kvatlas:{VERSION}:{{0}}:taken_bits:{MODEL}"))
            owner.writer.rewrite(WORKER)
        assert taken[0] > 0
        assert taken == [taken[0]] * 3
        await owner.until_written()
        assert await owner.matched() == 30


async def test_the_store_refuses_a_wrong_password_and_takes_the_right_one(
    redis: StoreProcess,
) -> None:
    with redis.client() as client:
        client.config_set("requirepass", "secret")
    with pytest.raises(StoreError) as raised:
        async with running_owner(redis.url):
            pass
    assert raised.value.kind == "refused"
    async with running_owner(redis.url.replace("//", "//:secret@")) as owner:
        owner.stored(0, 10)
        await owner.until_written()
        assert await owner.matched() == 10


async def test_a_store_works_over_a_unix_socket(tmp_path: Path) -> None:
    if server_program("valkey") is None:
        pytest.skip("there is no valkey-server on this machine")
    socket = tmp_path / "s"
    with store_process("valkey", "--unixsocket", str(socket)):
        async with running_owner(f"unix://{socket}") as owner:
            owner.stored(0, 10)
            await owner.until_written()
            assert await owner.matched() == 10


async def test_a_store_works_over_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    make_certificates(tmp_path)
    port = free_port()
    options = [
        *("--tls-port", str(port), "--tls-ca-cert-file", str(tmp_path / "ca.crt")),
        *(
            "--tls-cert-file",
            str(tmp_path / "host.crt"),
            "--tls-key-file",
            str(tmp_path / "host.key"),
        ),
    ]
    files = {
        "ca_file": tmp_path / "ca.crt",
        "certificate_file": tmp_path / "host.crt",
        "key_file": tmp_path / "host.key",
    }
    with store_process("redis", *options):
        async with running_owner(f"rediss://localhost:{port}", **files) as owner:
            owner.stored(0, 10)
            await owner.until_written()
            assert await owner.matched() == 10
        with pytest.raises(StoreError):  # the server wants to know who we are
            async with running_owner(f"rediss://localhost:{port}", ca_file=tmp_path / "ca.crt"):
                pass


@pytest.fixture
def sentinel(redis: StoreProcess, tmp_path: Path) -> Iterator[str]:
    """The URL by which a sentinel, which may not answer yet, knows the server."""
    program, port = server_program("redis"), free_port()
    assert program is not None
    file = tmp_path / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor fleet 127.0.0.1 {redis.port} 1\n"
    )
    with subprocess.Popen([program, str(file), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        yield f"redis+sentinel://127.0.0.1:{port}/fleet"
        process.terminate()


async def test_sentinels_know_where_the_store_is(sentinel: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                async with running_owner(sentinel) as owner:
                    owner.stored(0, 10)
                    await owner.until_written()
                    assert await owner.matched() == 10
                    return
            except StoreError as error:
                assert error.kind == "unreachable"  # the sentinel does not answer yet


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_slots_of_a_cluster_move_while_events_flow(kind: str) -> None:
    if server_program(kind) is None:
        pytest.skip(f"there is no {kind}-server on this machine")
    with cluster_processes(kind, primaries=3, spare=1) as cluster:
        async with running_owner(cluster.url) as owner:
            moving = asyncio.create_task(asyncio.to_thread(cluster.move_slots, 0, 3))
            stored = asked = 0
            while not moving.done() or stored < len(KEYS):
                if stored < len(KEYS):
                    owner.stored(stored, 1)
                    stored += 1
                else:
                    owner.as_of += 1
                await owner.until_written()
                try:
                    found = await owner.lookup.match(MODEL, model_scope(MODEL), GivenKeys(KEYS))
                except StoreError as error:  # a shard is on its way
                    assert error.kind in ("resharding", "unreachable")
                    continue
                match = found.match.best_of(WORKER.pod)
                if match is not None and WORKER not in found.in_flight:
                    assert match.matched_blocks == stored
                    asked += 1
            await moving
            assert await owner.matched() == len(KEYS)
            assert asked
            assert not owner.writer.failing


@pytest.mark.parametrize("kind", ["redis", "valkey cluster"])
async def test_a_new_version_of_the_layout_takes_over_a_running_store(kind: str) -> None:
    program, _, cluster = kind.partition(" ")
    if server_program(program) is None:
        pytest.skip(f"there is no {program}-server on this machine")

    async with AsyncExitStack() as stack:
        if cluster:
            store = stack.enter_context(cluster_processes(program))
            url, processes = store.url, store.nodes
        else:
            process = stack.enter_context(store_process(program))
            url, processes = process.url, [process]
        async with Server(patient_address(url)) as server:
            old, new = Owner(server, version=VERSION - 1), Owner(server)
            for number, owner in enumerate((old, new)):
                await owner.store.register_layout()
                await owner.store.heartbeat(f"replica {number}", 30.0)
                await owner.acquire()
                owner.stored(0, 50)
                await owner.until_written()
            # Side by side, while the fleet is rolled.
            assert await old.matched() == await new.matched() == 50
            (older,) = await older_versions(new.store)
            assert older.layout == old.store.layout
            assert not await older_versions(old.store)
            assert not await remove_layout(older)
            assert await old.matched() == 50
            await old.store.deregister("replica 0")
            assert await remove_layout(older)
            assert await new.matched() == 50
            assert not await older_versions(new.store)
            names = []
            for process in processes:
                with process.client() as client:
                    names += client.keys("*")
            assert names
            former = f"kvatlas:{VERSION - 1}:".encode()
            assert not [name for name in names if name.startswith(former)]


async def test_what_a_former_version_has_written_is_removed(redis: StoreProcess) -> None:
    """A worker with blocks, and the garbage of another, as version 2 wrote them."""
    written = json.loads((DATA / "store_layout_2.json").read_text())
    with redis.client() as client:
        for key, (kind, value) in written.items():
            name = bytes.fromhex(key)
            if kind == "string":
                client.set(name, bytes.fromhex(value))
            elif kind == "stream":
                for entry in value:
                    client.xadd(name, {"e": bytes.fromhex(entry)})
            else:
                pairs = {bytes.fromhex(f): bytes.fromhex(v) for f, v in value.items()}
                client.hset(name, mapping=pairs)
        client.hset("kvatlas:layout", "2", 1)
        assert len(client.keys("kvatlas:2:*")) == len(written)
    async with Server(parse_address(redis.url)) as server:
        owner = Owner(server)
        await owner.acquire()
        (older,) = await older_versions(owner.store)
        assert await remove_layout(older)
    with redis.client() as client:
        assert not client.keys("kvatlas:2:*")
        assert client.keys("kvatlas:3:*")
