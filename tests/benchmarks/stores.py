"""The shared index on a real server, beside one hash for each block with a JSON field a holder.

Both sides use the same server and the same client library, the other side in one pipeline.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.rows import row
from support.given_keys import GivenKeys
from support.stores.servers import StoreProcess, server_program, store_process

from indexer import Place, ReplicatedIndex, TrustState, TrustStatus, Worker, model_scope
from store import Acquired, Follower, Lookup, OwnedWorker, Server, Store, Writer, parse_address

MODEL = "bench"
BLOCKS = 4096
PROMPT = 512
ROUNDS = 30
OTHERS = "one hash a block, JSON fields, one pipeline"


class _Streams:
    """Workers that have nothing to say of themselves."""

    def trust_status(self, worker: Worker) -> TrustStatus:
        return TrustStatus(TrustState.EXACT, "", as_of=0)

    def dump(self, worker: Worker) -> dict[str, Any] | None:
        return {}

    def on_fenced(self, worker: Worker) -> None:
        raise AssertionError(worker)


def store_rows() -> None:
    """All of them."""
    if server_program("redis") is None:
        print("shared index: there is no redis-server on this machine")
        return
    for pods, share in ((8, "<= 1/12"), (64, "<= 1/40")):
        with store_process("redis") as process:
            asyncio.run(_rows(process, pods, share))


async def _rows(process: StoreProcess, pods: int, share: str) -> None:
    keys = array("Q", [random.getrandbits(64) for _ in range(BLOCKS)])
    names = [f"10.0.0.{number}:8000" for number in range(pods)]
    async with Server(parse_address(process.url)) as server:
        store = Store(server, "bench")
        index = ReplicatedIndex(2**30)
        writer = Writer(store, index, "bench", _Streams())
        before = _bytes(process)
        for pod in names:
            await _join(store, index, writer, Worker(pod, 0), keys)
        with process.client() as client:  # which is bounded, however much is stored
            client.xtrim(f"{store.layout.prefix(0)}journal", maxlen=0, approximate=False)
        ours_bytes = _bytes(process) - before
        lookup, scope = Lookup(store, {"gpu": 1.0}), model_scope(MODEL)
        ours = await _median(lambda: lookup.match(MODEL, scope, GivenKeys(keys[:PROMPT])))
        await _start_row(store, keys, pods)
        other = _Other(server, keys, names)
        before = _bytes(process)
        await other.fill()
        other_bytes = _bytes(process) - before
        theirs = await _median(lambda: other.look(PROMPT))
        _ratio(f"shared index: lookup {PROMPT} keys, {pods} pods", ours, theirs, share)
        fresh = iter(range(10**9))

        async def store_blocks() -> None:
            first = next(fresh) * 64 + BLOCKS + 1
            hashes = array("Q", range(first, first + 64))
            new = array("Q", [random.getrandbits(64) for _ in hashes])
            index.store(Worker(names[0], 0), Place("gpu"), hashes, new)
            assert await writer.write()

        ours, theirs = await _median(store_blocks), await _median(lambda: other.store(64))
        _ratio(f"shared index: store 64 blocks, {pods} pods", ours, theirs, "one round trip")

        async def clear() -> None:
            index.clear(Worker(names[0], 0), ["gpu"])
            assert await writer.write()

        start = time.perf_counter()
        await clear()
        ours = time.perf_counter() - start
        start = time.perf_counter()
        await other.clear(names[0])
        _ratio(
            f"shared index: clear a pod, {pods} pods",
            ours,
            time.perf_counter() - start,
            "constant number of commands",
        )
        row(
            f"shared index: bytes a block, {pods} pods",
            f"{ours_bytes / BLOCKS:.0f}",
            f"{OTHERS} {other_bytes / BLOCKS:.0f}",
            ours_bytes / other_bytes,
            "documented",
        )


async def _start_row(store: Store, keys: array[int], pods: int) -> None:
    """A replica that has just started: its first answer by the store, and its copy once loaded."""
    lookup, scope, prompt = Lookup(store, {"gpu": 1.0}), model_scope(MODEL), keys[:PROMPT]
    start = time.perf_counter()
    result = await lookup.match(MODEL, scope, GivenKeys(prompt))
    first_answer = time.perf_counter() - start
    index = ReplicatedIndex(2**30)
    follower = Follower(store, index, with_blocks=True)
    start = time.perf_counter()
    following = [
        asyncio.create_task(follower.follow_shard(shard)) for shard in range(store.layout.shards)
    ]
    while not follower.is_warm:
        await follower.wait_for_progress()
    loaded = time.perf_counter() - start
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    assert index.match(MODEL, GivenKeys(prompt)).best_of(result.pods[0]) is not None
    row(
        f"shared index: first answer of a new replica, {pods} pods",
        f"{first_answer * 1e3:.1f} ms",
        f"its copy is loaded: {loaded * 1e3:.0f} ms, {index.table.bytes_used / 2**20:.1f} MiB",
        first_answer / loaded,
        "without a copy",
    )


async def _join(
    store: Store, index: ReplicatedIndex, writer: Writer, worker: Worker, keys: array[int]
) -> None:
    owned = await store.acquire(worker, MODEL, "bench", [], fresh=False)
    assert isinstance(owned, Acquired)
    index.join(worker, MODEL)
    writer.add(OwnedWorker(worker, MODEL, model_scope(MODEL), ""), owned, None)
    index.store(worker, Place("gpu"), array("Q", range(1, len(keys) + 1)), keys)
    assert await writer.write()


class _Other:
    """The layout of llm-d-kv-cache's Redis index, as fast as the same client can ask it."""

    def __init__(self, server: Server, keys: array[int], pods: list[str]) -> None:
        self._client = server._client
        self._keys = [f"{MODEL}@{key}" for key in keys]
        self._fields = [json.dumps({"PodIdentifier": pod, "DeviceTier": "gpu"}) for pod in pods]

    async def fill(self) -> None:
        for start in range(0, len(self._keys), 256):
            pipeline = self._client.pipeline(transaction=False)
            for key in self._keys[start : start + 256]:
                pipeline.hset(key, mapping=dict.fromkeys(self._fields, 1))
            await pipeline.execute()

    async def look(self, count: int) -> dict[str, int]:
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys[:count]:
            pipeline.hkeys(key)
        matched: dict[str, int] = {}
        for at, fields in enumerate(await pipeline.execute()):
            for field in fields:
                pod = json.loads(field)["PodIdentifier"]
                if matched.get(pod, 0) == at:
                    matched[pod] = at + 1
        return matched

    async def store(self, count: int) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(count):
            pipeline.hset(f"{MODEL}@{random.getrandbits(64)}", self._fields[0], 1)
        await pipeline.execute()

    async def clear(self, pod: str) -> None:
        field = json.dumps({"PodIdentifier": pod, "DeviceTier": "gpu"})
        cursor = 0
        while True:
            cursor, found = await self._client.scan(cursor, match=f"{MODEL}@*", count=1000)
            pipeline = self._client.pipeline(transaction=False)
            for key in found:
                pipeline.hdel(key, field)
            await pipeline.execute()
            if not cursor:
                return


def _bytes(process: StoreProcess) -> int:
    with process.client() as client:
        return int(client.info("memory")["used_memory"])


async def _median(work: Callable[[], Awaitable[object]]) -> float:
    await work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _ratio(name: str, ours: float, theirs: float, target: str) -> None:
    row(name, f"{ours * 1e3:.2f} ms", f"{OTHERS} {theirs * 1e3:.2f} ms", ours / theirs, target)
