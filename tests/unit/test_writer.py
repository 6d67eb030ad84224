"""A replica's workers on their way to a real store: rounds, fences, failures."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pytest
from support.given_keys import GivenKeys
from support.naive.index import MODELS
from support.stores.replicated import IndexReplica, index_replicas
from support.stores.servers import StoreProcess, server_program, store_process

from indexer import Place, Worker, model_scope
from store.records import HandoverState
from store.scripts import ReadRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

A, B = Worker("a:1", 0), Worker("b:1", 0)
MODEL = MODELS[A.pod]
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
    """The owner of worker A, and another replica."""
    async with index_replicas(server.url, "one", "two") as both:
        await both[0].take(A, ["one", "two"])
        yield both


@pytest.fixture
def owner(replicas: list[IndexReplica]) -> IndexReplica:
    return replicas[0]


def store(replica: IndexReplica, first: int, count: int, worker: Worker = A) -> None:
    """Blocks of the one prompt, from the block number `first` on."""
    hashes = array("Q", range(first + 1, first + 1 + count))
    replica.steps[worker] = first + count
    replica.index.store(worker, GPU, hashes, KEYS[first : first + count])


async def matched(replica: IndexReplica, worker: Worker = A) -> int:
    """Leading blocks of the prompt that the store itself says the worker holds."""
    found = await replica.lookup.match(MODEL, model_scope(MODEL), GivenKeys(KEYS))
    match = found.match.best_of(worker.pod)
    return 0 if match is None else match.matched_blocks


async def test_a_written_block_is_in_the_store(owner: IndexReplica) -> None:
    store(owner, 0, 10)
    assert await matched(owner) == 0
    assert await owner.writer.write()
    assert await matched(owner) == 10


async def test_a_removed_block_is_removed_from_the_store(owner: IndexReplica) -> None:
    store(owner, 0, 10)
    await owner.write_all()
    owner.index.remove(A, GPU, array("Q", [6]))
    await owner.write_all()
    assert await matched(owner) == 5


async def test_a_block_that_came_and_went_between_two_rounds_is_not_written(
    owner: IndexReplica,
) -> None:
    store(owner, 0, 10)
    owner.index.remove(A, GPU, array("Q", [10]))
    await owner.write_all()
    assert await matched(owner) == 9


async def test_one_round_writes_the_changes_of_every_worker(owner: IndexReplica) -> None:
    await owner.take(B, ["one", "two"])
    await owner.write_all()
    rounds = owner.writer.rounds
    store(owner, 0, 10, A)
    store(owner, 0, 20, B)
    assert await owner.writer.write()
    assert owner.writer.rounds == rounds + 1
    assert (await matched(owner, A), await matched(owner, B)) == (10, 20)


async def test_a_worker_that_cannot_be_written_holds_no_other_up(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump(worker: Worker) -> dict[str, Any]:
        if worker == A:
            raise RuntimeError("no stream to dump")
        return {"steps": owner.steps.get(worker)}

    await owner.take(B, ["one", "two"])
    await owner.write_all()
    store(owner, 0, 10, A)
    store(owner, 0, 20, B)
    with monkeypatch.context() as patch:
        patch.setattr(owner, "dump", dump)
        assert not await owner.writer.write()
        assert owner.writer.failures == {"internal": 1}
        assert (await matched(owner, A), await matched(owner, B)) == (0, 20)
    await owner.write_all()
    assert (await matched(owner, A), await matched(owner, B)) == (10, 20)


async def test_a_writer_without_changes_writes_nothing(owner: IndexReplica) -> None:
    await owner.write_all()
    rounds, revision = owner.writer.rounds, owner.writer.owned[A].revision
    assert await owner.writer.write()
    assert (owner.writer.rounds, owner.writer.owned[A].revision) == (rounds, revision)


async def test_a_changed_trust_status_is_written_without_any_block(owner: IndexReplica) -> None:
    await owner.write_all()
    revision = owner.writer.owned[A].revision
    owner.steps[A] = 99  # `as_of` of the worker's trust status
    await owner.write_all()
    assert owner.writer.owned[A].revision == revision + 1


async def test_a_write_under_way_does_not_count_for_what_is_requested_meanwhile(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a note for the next owner is in the state that it finds."""
    call_all, written, notes = owner.store.call_all, list[str](), ["none"]

    def dump(_: Worker) -> dict[str, Any]:
        written.append(notes[-1])
        return {"note": notes[-1]}

    async def call_while_a_note_comes(calls: Any) -> Any:
        answers = await call_all(calls)
        if written == ["none"]:
            notes.append("kept")
            owner.writer.write_again(A)
        return answers

    monkeypatch.setattr(owner, "dump", dump)
    monkeypatch.setattr(owner.store, "call_all", call_while_a_note_comes)
    store(owner, 0, 10)
    await owner.write_all()
    state = HandoverState.unpack(await owner.store.handover_state(A))
    assert state.stream == {"note": "kept"}
    assert written == ["none", "kept"]


async def test_every_write_of_a_worker_has_the_next_revision(owner: IndexReplica) -> None:
    revisions = []
    for number in range(3):
        store(owner, number * 10, 10)
        assert await owner.writer.write()
        revisions.append(owner.writer.owned[A].revision)
    assert revisions == [1, 2, 3]


async def test_more_changes_than_a_round_takes_are_written_in_several(owner: IndexReplica) -> None:
    count = 20_000  # a round takes 16,384 of a worker
    hashes = array("Q", range(1, count + 1))
    owner.index.store(A, GPU, hashes, array("Q", range(10**6, 10**6 + count)))
    rounds = owner.writer.rounds
    await owner.write_all()
    assert owner.writer.rounds == rounds + 2
    assert owner.index.pending_count(A) == 0


async def test_a_former_owner_is_fenced_and_its_changes_do_not_reach_the_store(
    replicas: list[IndexReplica],
) -> None:
    former, heir = replicas
    store(former, 0, 10)
    await former.write_all()
    await heir.take(A, [heir.name])  # the former owner counts as dead
    store(former, 10, 10)
    await former.writer.write()
    assert former.was_lost == [A]
    assert A not in former.writer.owned
    await heir.write_all()
    assert await matched(heir) == 10


async def test_a_worker_that_leaves_during_a_round_is_not_written_any_more(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the index at once, and the writer a little later."""
    store(owner, 0, 10)
    await owner.write_all()
    acquire = owner.store.acquire

    async def acquire_while_leaving(*args: Any, **more: Any) -> Any:
        acquired = await acquire(*args, **more)
        owner.index.leave(A)
        return acquired

    monkeypatch.setattr(owner.store, "acquire", acquire_while_leaving)
    owner.writer.rewrite(A)
    assert await owner.writer.write()
    assert await matched(owner) == 0


async def test_bits_of_a_worker_that_leaves_are_not_freed_while_blocks_have_them(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(owner, 0, 10)
    await owner.write_all()
    owner.index.clear(A, ["gpu"])
    await owner.write_all()
    (owned,) = owner.writer.owned.values()
    assert owned.retired_bits
    read_pages = owner.store.read_pages

    async def read_pages_while_leaving(*args: Any) -> Any:
        pages = await read_pages(*args)
        owner.index.leave(A)
        return pages

    monkeypatch.setattr(owner.store, "read_pages", read_pages_while_leaving)
    await owner.cleaner.collect_worker(owned)
    assert owner.cleaner.bits_freed == 0


async def test_a_worker_that_leaves_while_it_is_released_can_still_be_removed(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(owner, 0, 10)
    call_all = owner.store.call_all

    async def call_while_leaving(calls: Any) -> Any:
        answers = await call_all(calls)
        owner.index.leave(A)
        return answers

    monkeypatch.setattr(owner.store, "call_all", call_while_leaving)
    assert await owner.succession.release(A, lambda: None)
    monkeypatch.undo()
    (owned,) = owner.writer.owned.values()
    assert await owner.store.remove_worker(A, owned.epoch)


async def test_a_worker_that_a_spared_replica_owns_is_not_removed(
    replicas: list[IndexReplica],
) -> None:
    former, heir = replicas
    assert not await former.store.remove_worker(A, None, spared=["one", "two"])
    assert await former.succession.release(A, lambda: None)
    await heir.take(A, ["one", "two"])
    assert not await former.store.remove_worker(A, None, spared=["two"])
    assert await heir.succession.release(A, lambda: None)
    assert await former.store.remove_worker(A, None, spared=["one", "two"])  # nobody owns it


async def test_an_operator_s_request_to_resync_is_not_replaced(owner: IndexReplica) -> None:
    await owner.write_all()
    await owner.store.request(A, "rewrite", if_none=True)
    await owner.store.request(A, "resync")
    await owner.store.request(A, "rewrite", if_none=True)
    reports = {A: (owner.writer.owned[A].epoch, b"")}
    assert list((await owner.store.renew_reports(reports)).values()) == ["resync"]
    assert not await owner.store.renew_reports(reports)
    await owner.store.request(A, "rewrite", if_none=True)
    assert list((await owner.store.renew_reports(reports)).values()) == ["rewrite"]


async def test_a_worker_that_was_removed_is_not_written_any_more(owner: IndexReplica) -> None:
    store(owner, 0, 10)
    await owner.write_all()
    store(owner, 10, 10)
    owner.writer.remove(A)
    assert await owner.writer.write()
    assert await matched(owner) == 10


async def test_a_store_that_has_lost_everything_gets_a_new_generation(
    owner: IndexReplica, server: StoreProcess
) -> None:
    store(owner, 0, 10)
    await owner.write_all()
    generation = owner.writer.owned[A].generation
    with server.client() as client:
        client.flushall()
    await owner.store.register_layout()
    await owner.writer.verify()
    await owner.write_all()
    assert owner.writer.owned[A].generation != generation
    assert await matched(owner) == 10


async def test_changes_of_a_failed_round_are_written_by_a_later_one() -> None:
    if server_program("valkey") is None:
        pytest.skip("there is no valkey-server on this machine")
    with store_process("valkey") as own:
        async with index_replicas(own.url, "one") as (owner,):
            await owner.take(A, ["one"])
            store(owner, 0, 10)
            with own.client() as client:
                client.config_set("maxmemory", "1")
                assert not await owner.writer.write()
                assert owner.writer.failing == "full"
                assert owner.writer.failures["full"] == 1
                client.config_set("maxmemory", "0")
            await owner.write_all()
            assert owner.writer.failing == ""
            assert await matched(owner) == 10


@pytest.mark.parametrize("then", ["store", "clear"])
async def test_events_that_come_while_old_rows_are_read_are_written_in_the_next_round(
    owner: IndexReplica, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A write under the hashes of a cleared holder waits for the store: events go on meanwhile."""
    store(owner, 0, 10)
    await owner.write_all()
    owner.index.clear(A, ("gpu",))
    store(owner, 0, 6)
    call, happened = owner.store.call, []

    async def call_and_let_events_come(script: Any, shard: int) -> Any:
        answer = await call(script, shard)
        if isinstance(script, ReadRows):
            happened.append(then)
            if then == "store":
                hashes = array("Q", range(1, 4))
                owner.index.store(A, Place("cpu", 0), hashes, KEYS[:3])
            else:
                owner.index.clear(A, ("gpu",))
                store(owner, 0, 2)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(owner.store, "call", call_and_let_events_come)
        assert await owner.writer.write()
    assert happened == [then]
    assert await matched(owner) == 6
    await owner.write_all()
    assert await matched(owner) == {"store": 6, "clear": 2}[then]
    assert owner.writer.failures == {}
