"""A replica's copy of another replica's workers, over a real store."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest
from support.given_keys import GivenKeys
from support.naive.index import MODELS
from support.stores.replicated import IndexReplica, index_replicas
from support.stores.servers import StoreProcess, server_program, store_process

from indexer import Place, Worker
from service.routing import Decisions
from service.routing.handles import NO_PROMISES, ScoredKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WORKER = Worker("a:1", 0)
MODEL = MODELS[WORKER.pod]
GPU = Place("gpu", 0)
KEYS = array("Q", range(1000, 1100))


@pytest.fixture(scope="module")
def server() -> Iterator[StoreProcess]:
    if server_program("valkey") is None:
        pytest.skip("there is no valkey-server on this machine")
    with store_process("valkey") as process:
        yield process


@pytest.fixture
async def replicas(server: StoreProcess) -> AsyncIterator[list[IndexReplica]]:
    """The owner of a worker with ten blocks in the store, and a replica that follows it."""
    async with index_replicas(server.url, "one", "two") as both:
        owner, _ = both
        await owner.take(WORKER, ["one", "two"])
        store(owner, 0, 10)
        await owner.write_all()
        yield both


def store(owner: IndexReplica, first: int, count: int) -> None:
    hashes = array("Q", range(first + 1, first + 1 + count))
    owner.steps[WORKER] = first + count
    owner.index.store(WORKER, GPU, hashes, KEYS[first : first + count])


def matched(replica: IndexReplica) -> int:
    """Leading blocks of the prompt that the replica's own copy says the worker holds."""
    match = replica.index.match(MODEL, GivenKeys(KEYS)).best_of(WORKER.pod)
    return 0 if match is None else match.matched_blocks


async def test_a_follower_has_the_blocks_that_the_owner_has_written(
    replicas: list[IndexReplica],
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    assert matched(follower) == 10


async def test_a_follower_does_not_have_what_is_not_written_yet(
    replicas: list[IndexReplica],
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    store(owner, 10, 10)
    assert matched(follower) == 10
    await owner.write_all()
    await follower.follows(owner)
    assert matched(follower) == 20


async def test_a_follower_applies_removals(replicas: list[IndexReplica]) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    owner.index.remove(WORKER, GPU, array("Q", [4]))
    await owner.write_all()
    await follower.follows(owner)
    assert matched(follower) == 3


async def test_a_follower_forgets_a_worker_that_its_owner_has_removed(
    replicas: list[IndexReplica],
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    epoch = owner.writer.owned[WORKER].epoch
    owner.writer.remove(WORKER)
    await owner.store.remove_worker(WORKER, epoch)
    await follower.follows(owner)  # which owns nothing
    assert matched(follower) == 0
    assert WORKER not in {count.worker for count in follower.index.workers()}


async def test_a_follower_that_starts_late_loads_the_worker_as_it_is(
    server: StoreProcess,
) -> None:
    async with index_replicas(server.url, "one") as (owner,):
        await owner.take(WORKER, ["one"])
        for number in range(5):
            store(owner, number * 10, 10)
            await owner.write_all()
        late = IndexReplica("late", owner.store, count_copies=True)
        try:
            assert not late.copy.is_warm
            await late.follows(owner)
            assert matched(late) == 50
            assert (late.copy.loads, late.copy.entries) == (1, 0)
        finally:
            for task in late.tasks:
                task.cancel()


async def test_a_follower_with_every_worker_is_warm(replicas: list[IndexReplica]) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    while not follower.copy.is_warm:
        await follower.copy.wait_for_progress()
    assert matched(follower) == 10


async def test_a_follower_loads_a_new_generation_in_place_of_the_former(
    replicas: list[IndexReplica], server: StoreProcess
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    former = owner.writer.owned[WORKER]
    was = (WORKER, former.generation, former.revision)
    with server.client() as client:
        client.flushall()
    await owner.store.register_layout()
    owner.index.clear(WORKER, ["gpu"])
    store(owner, 0, 5)
    await owner.writer.verify()
    await owner.write_all()
    await follower.follows(owner)
    assert matched(follower) == 5
    assert not follower.copy.has_revision(*was)


async def test_a_generation_that_begins_while_the_former_is_loaded_is_not_malformed(
    replicas: list[IndexReplica], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _ = replicas
    owner.index.store(WORKER, Place("cpu", 0), array("Q", [1]), KEYS[:1])
    await owner.write_all()
    handover_state, written = owner.store.handover_state, list[str]()

    async def state_of_the_next_generation(worker: Worker) -> bytes:
        if not written:
            written.append(owner.writer.owned[WORKER].generation)
            owner.index.clear(WORKER, ["cpu"])
            owner.writer.rewrite(WORKER)
            await owner.write_all()
        return await handover_state(worker)

    monkeypatch.setattr(owner.store, "handover_state", state_of_the_next_generation)
    late = IndexReplica("late", owner.store, count_copies=True)
    try:
        await late.follows(owner)
    finally:
        for task in late.tasks:
            task.cancel()
    assert written
    assert written != [owner.writer.owned[WORKER].generation]
    assert matched(late) == 10
    assert late.copy.failures == {}


async def test_a_follower_leaves_this_replica_s_own_workers_alone(server: StoreProcess) -> None:
    async with index_replicas(server.url, "one", "two") as (owner, other):
        while not owner.copy.is_warm:  # it reads the journal from here on
            await owner.copy.wait_for_progress()
        await owner.take(WORKER, ["one", "two"])
        store(owner, 0, 10)
        await owner.write_all()
        await other.take(Worker("b:1", 0), ["one", "two"])
        await other.write_all()
        await owner.follows(other)  # and so has read its own entry
        own = owner.writer.owned[WORKER]
        assert not owner.copy.has_revision(WORKER, own.generation, own.revision)
        assert matched(owner) == 10


async def test_a_replica_that_takes_a_worker_over_continues_from_its_copy(
    replicas: list[IndexReplica],
) -> None:
    former, heir = replicas
    await heir.follows(former)
    assert await former.succession.release(WORKER, lambda: None)
    await heir.take(WORKER, ["one", "two"])
    assert heir.steps[WORKER] == 10
    assert matched(heir) == 10
    store(heir, 10, 5)
    await heir.write_all()
    await former.follows(heir)
    assert matched(former) == 15


def routed(replica: IndexReplica) -> Decisions:
    """A request with the prompt has been routed to the worker: half of it is held so far."""
    decisions = Decisions(replica.index, 2**20, lambda: 0.0)
    prompt = ScoredKeys(MODEL, 16, {16: KEYS[:20]}, NO_PROMISES)
    assert decisions.add(b"handle", prompt, WORKER, 1.0)
    return decisions


async def are_confirmed_by_blocks(
    routings: list[Decisions], owner: IndexReplica, other: IndexReplica
) -> bool:
    """Whether the blocks that the worker stores next end the routings, and nothing else has."""
    store(owner, 10, 10)
    await owner.write_all()
    await other.follows(owner)
    for decisions in routings:
        decisions.confirm_held()
    return all(decisions.ended == {"confirmed": 1} for decisions in routings)


async def test_a_routing_outlasts_the_hand_over_of_its_worker(
    replicas: list[IndexReplica],
) -> None:
    former, heir = replicas
    await heir.follows(former)
    routings = [routed(replica) for replica in replicas]
    assert await former.succession.release(WORKER, lambda: None)
    await heir.take(WORKER, ["one", "two"])
    assert await are_confirmed_by_blocks(routings, heir, former)


async def test_a_routing_outlasts_the_replica_that_applied_its_worker_s_events(
    replicas: list[IndexReplica],
) -> None:
    dead, heir = replicas
    await heir.follows(dead)
    routings = [routed(replica) for replica in replicas]
    await heir.take(WORKER, ["two"])
    store(dead, 10, 5)
    await dead.writer.write()
    assert dead.was_lost == [WORKER]  # it lives after all, and has to load what is not its own
    assert await are_confirmed_by_blocks(routings, heir, dead)


async def test_a_routing_outlasts_that_its_worker_is_loaded_again(
    replicas: list[IndexReplica],
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    routing = routed(follower)
    owner.index.clear(WORKER, ["gpu"])
    owner.writer.rewrite(WORKER)  # in a new generation
    store(owner, 0, 10)
    assert await are_confirmed_by_blocks([routing], owner, follower)


async def test_a_routing_ends_with_its_worker_or_its_worker_s_model(
    replicas: list[IndexReplica],
) -> None:
    owner, follower = replicas
    await follower.follows(owner)
    routings = [routed(replica) for replica in replicas]
    owner.index.rejoin(WORKER, "another")
    epoch = owner.writer.owned[WORKER].epoch
    owner.writer.remove(WORKER)
    await owner.store.remove_worker(WORKER, epoch)
    await follower.follows(owner)
    assert [routing.ended for routing in routings] == [{"pod_left": 1}] * 2
