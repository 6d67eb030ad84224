"""Values in the store that cannot be decoded: failures of the store, counted and healed."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import zmq
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.services.asking import CallAsker
from support.services.one_pod import MODEL, TOKENS, block_stored, frame, score, score_request
from support.services.running import RunningService, local_configuration, running_service
from support.stores.servers import StoreProcess, server_program, store_process

from service.replication import SharedReplica
from store import rendezvous_owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NAMESPACES = itertools.count()
PODS = ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]
NOT_MSGPACK = b"\xc1"


@pytest.fixture(scope="module")
def redis() -> Iterator[StoreProcess]:
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        yield process


class Pods:
    """Three pods that publish by hand, and replicas that listen to them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._stack = stack
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        self.publishers = {pod: Publisher(context) for pod in PODS}
        for publisher in self.publishers.values():
            stack.callback(publisher.close)
        self._url = url
        self.namespace = f"malformed{next(NAMESPACES)}"
        self._sequence = 0

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[RunningService]:
        sources = [
            {"endpoint": publisher.endpoint, "pod": pod, "model": MODEL}
            for pod, publisher in self.publishers.items()
        ]
        store = {"url": self._url, "namespace": self.namespace, "replica": name}
        store |= {
            "lease_seconds": "10"
        }  # no test waits for one, and a busy machine loses short ones
        async with running_service(local_configuration(sources=sources, store=store)) as service:
            yield service

    async def subscribed(self) -> None:
        for publisher in self.publishers.values():
            await publisher.until_subscribed()

    async def settled(self, **replicas: RunningService) -> None:
        """Wait until each replica listens to the pods that are its own, and to no others."""
        await self.subscribed()
        async with asyncio.timeout(DEADLINE_SECONDS):
            for name, service in replicas.items():
                listener = service.application.listener
                while any(  # noqa: ASYNC110 - nothing tells of it
                    listener.is_listening_to(source) != (self.owner(source.pod, *replicas) == name)
                    for source in listener.sources
                ):
                    await asyncio.sleep(0.001)

    def owner(self, pod: str, *names: str) -> str | None:
        return rendezvous_owner(self.publishers[pod].endpoint, names)

    def publish(self) -> None:
        """Every pod stores one block more of the same prompt."""
        first = self._sequence * 16
        parent = {"parent_block_hash": self._sequence} if self._sequence else {}
        block = block_stored(TOKENS[first : first + 16], self._sequence + 1, **parent)
        for pod, publisher in self.publishers.items():
            publisher.send(frame(self._sequence, block, topic=f"kv@{pod}@{MODEL}"))
        self._sequence += 1

    def key(self, name: str) -> str:
        return f"{self.namespace}:3:{{0}}:{name}"


@asynccontextmanager
async def three_pods(url: str) -> AsyncIterator[Pods]:
    async with AsyncExitStack() as stack:
        yield Pods(url, stack)


async def matched(service: RunningService) -> dict[str, int]:
    return {
        pod.pod: pod.matched_blocks for pod in (await score(service, score_request(TOKENS))).pods
    }


async def eventually(holds: Any) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await holds():
            pass


def replica_of(service: RunningService) -> SharedReplica:
    replica = service.application.replica
    assert isinstance(replica, SharedReplica)
    return replica


async def test_a_malformed_handover_state_stops_no_take_over(redis: StoreProcess) -> None:
    """Of three pods one has an undecodable state, and one an undecodable stream in it."""
    async with three_pods(redis.url) as pods:
        async with pods.replica("a") as a:
            await pods.subscribed()
            pods.publish()
            await a.until_applied({(pod, 0): 0 for pod in PODS})
        await pods.subscribed()  # this time: a has unsubscribed
        with redis.client() as client:
            first, second = (pods.key(f"w:{pod}/0") for pod in PODS[:2])
            state = msgpack.unpackb(client.hget(second, "state"), strict_map_key=False)
            state[0] = {"worker": "nobody"}
            client.hset(first, "state", NOT_MSGPACK)
            client.hset(second, "state", msgpack.packb(state))
        async with pods.replica("b") as b:
            await pods.subscribed()
            pods.publish()
            await b.until_applied({(pod, 0): 1 for pod in PODS})
            assert replica_of(b).ownership.failures == {"malformed": 2}
            ranks = await b.pods()
            assert not any(rank.trust_reason == "changing_hands" for rank in ranks.values())
            assert (await matched(b))[PODS[2]] == 2
            assert not b.application.loops.deaths
            # The pods that started anew are scored as soon as their blocks are known again.
            for sequence in (2, 3):
                for pod, publisher in pods.publishers.items():
                    event = block_stored(TOKENS, 10 * sequence)
                    publisher.send(frame(sequence, event, topic=f"kv@{pod}@{MODEL}"))
            await b.until_applied({(pod, 0): 3 for pod in PODS})
            assert await matched(b) == dict.fromkeys(PODS, 4)
            async with pods.replica("c") as c:  # and others find them in the store

                async def copied() -> bool:
                    return await matched(c) == dict.fromkeys(PODS, 4)

                await eventually(copied)


@pytest.mark.parametrize("key", ["workers", "reports"])
async def test_a_malformed_record_or_report_is_written_again(redis: StoreProcess, key: str) -> None:
    async with three_pods(redis.url) as pods, pods.replica("a") as a, pods.replica("b") as b:
        await pods.settled(a=a, b=b)
        pods.publish()
        for service in (a, b):
            await service.until(
                lambda ranks: all(
                    (pod, 0) in ranks and ranks[pod, 0].trust_state == TRUST_STATE_EXACT
                    for pod in PODS
                )
            )

            async def all_are_known(service: RunningService = service) -> bool:
                return await matched(service) == dict.fromkeys(PODS, 1)

            await eventually(all_are_known)
        name = f"{PODS[0]}/0"
        with redis.client() as client:
            client.hset(pods.key(key), name, NOT_MSGPACK)

            async def healed() -> bool:
                await a.pods()
                blob = client.hget(pods.key(key), name)
                return blob is not None and blob != NOT_MSGPACK

            await eventually(healed)
        for service in (a, b):
            assert await matched(service) == dict.fromkeys(PODS, 1)
            assert not service.application.loops.deaths


async def test_malformed_rows_are_written_again_by_their_owner(redis: StoreProcess) -> None:
    """A replica that joins cannot load one of three workers, and asks its owner."""
    async with three_pods(redis.url) as pods, pods.replica("a") as a:
        await pods.subscribed()
        pods.publish()
        await a.until_applied({(pod, 0): 0 for pod in PODS})
        owned = replica_of(a).writer.owned
        worker = next(worker for worker in owned if worker.pod == PODS[0])
        generation = owned[worker].generation
        with redis.client() as client:

            async def written() -> bool:
                await a.pods()
                return bool(client.keys(pods.key(f"p:{generation}:*")))

            await eventually(written)
            (page,) = client.keys(pods.key(f"p:{generation}:*"))
            (name,) = client.hkeys(page)
            client.hset(page, name, b"half a row")
        # The owner has to stay the owner: with another one the worker would start anew.
        stays = (n for n in map(str, itertools.count()) if pods.owner(PODS[0], "a", n) == "a")
        async with pods.replica(next(stays)) as b:

            async def healed() -> bool:
                return await matched(b) == dict.fromkeys(PODS, 1)

            await eventually(healed)
            assert replica_of(b).follower.failures["malformed"] >= 1
            assert owned[worker].generation != generation


async def test_a_malformed_journal_entry_has_the_shard_loaded_again(redis: StoreProcess) -> None:
    async with three_pods(redis.url) as pods, pods.replica("a") as a, pods.replica("b") as b:
        await pods.settled(a=a, b=b)
        pods.publish()
        for service in (a, b):
            await service.until_applied({(pod, 0): 0 for pod in PODS})
        with redis.client() as client:
            client.xadd(pods.key("journal"), {"e": NOT_MSGPACK})
        pods.publish()
        for service in (a, b):
            await service.until_applied({(pod, 0): 1 for pod in PODS})

            async def followed(service: RunningService = service) -> bool:
                return await matched(service) == dict.fromkeys(PODS, 2)

            await eventually(followed)
            assert replica_of(service).follower.failures["malformed"] >= 1
            assert not service.application.loops.deaths


async def test_a_damaged_journal_of_routings_is_counted_and_goes_on(redis: StoreProcess) -> None:
    async with three_pods(redis.url) as pods, pods.replica("a") as a, pods.replica("b") as b:
        await pods.settled(a=a, b=b)
        pods.publish()
        for service in (a, b):
            await service.until_applied({(pod, 0): 0 for pod in PODS})
        asker, pod = CallAsker(a.channel), PODS[0]

        async def is_told() -> bool:
            """Another request is routed; whether the other replica has heard of any by now."""
            answer = await asker.score(score_request(TOKENS, want_handle=True))
            await asker.record(handle=answer.handle, pod=pod, ttl_ms=300)
            found = await score(b, score_request(TOKENS, pods=[pod]))
            return found.pods[0].speculative_blocks > 0

        async def is_over() -> bool:
            found = await score(b, score_request(TOKENS, pods=[pod]))
            return found.pods[0].speculative_blocks == 0

        await eventually(is_told)
        with redis.client() as client:
            client.xadd(pods.key("routings"), {"e": NOT_MSGPACK})
        peers = b.application._servers._served.routing.peers

        async def is_counted() -> bool:
            await asyncio.sleep(0.001)
            return peers.lost["malformed"] == 1

        await eventually(is_counted)
        await eventually(is_over)
        await eventually(is_told)
        await eventually(is_over)
        with redis.client() as client:
            client.set(pods.key("routings"), "no stream")
        await eventually(is_told)
        failures = [replica_of(service).failures.counts["malformed"] for service in (a, b)]
        assert sum(failures) >= 1
        assert not a.application.loops.deaths
        assert not b.application.loops.deaths
