"""Events taken in, beside a Rust service that does the same: NVIDIA Dynamo's standalone indexer.

The peer is a wheel of the registry, which only these rows need: put `ai-dynamo-runtime` into an
environment of its own, and name the Python in it:

    python -m venv /tmp/peer && /tmp/peer/bin/pip install ai-dynamo-runtime==1.6.1
    make bench ARGS="--only peer --peer /tmp/peer/bin/python"

Both connect to the same publishers, one service after the other, and get the same frames all at
once. Without the peer the rows have our side alone.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import zmq
from benchmarks.rows import cpu_seconds, row
from benchmarks.service import MODEL, Process, kvatlas, wait_for

ROUNDS = 3
BLOCK = 16
SEQUENCES = ((2048, 2), (512, 11), (272, 1))  # blocks, and how many: shared, and once more its own
BLOCKS = 2 * sum(blocks * count for blocks, count in SEQUENCES)  # of a worker

Payloads = list[list[bytes]]
"""The payloads of each worker, in order."""


class Taken(NamedTuple):
    """What it took to take frames in."""

    cpu: float
    """Seconds."""
    growth: float
    """Bytes by which memory has grown."""


def resident_bytes(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def _sequence(owner: int, number: int, blocks: int) -> tuple[list[int], list[int]]:
    """The tokens and the engine hashes of a sequence."""
    source = random.Random(f"{owner} {number} {blocks}")
    tokens = [source.randrange(128_000) for _ in range(blocks * BLOCK)]
    return tokens, [source.getrandbits(62) for _ in range(blocks)]


def stored(tokens: list[int], hashes: list[int], parent: int | None) -> list[object]:
    return ["BlockStored", hashes, parent, tokens, BLOCK, None, "GPU", None]


def payload(events: Sequence[object]) -> bytes:
    packed: bytes = msgpack.packb([time.time(), events, 0])
    return packed


def _shared_prefixes(workers: int) -> Payloads:
    """Each worker stores 20,000 blocks, half of them in sequences that all workers have."""
    lengths = [blocks for blocks, count in SEQUENCES for _ in range(count)]
    shared = {(-1, n): _sequence(-1, n, blocks) for n, blocks in enumerate(lengths)}
    made: Payloads = []
    for worker in range(workers):
        source = random.Random(worker)
        own = {(worker, n): _sequence(worker, n, blocks) for n, blocks in enumerate(lengths)}
        sequences = [*shared.values(), *own.values()]
        source.shuffle(sequences)
        payloads = []
        for tokens, hashes in sequences:
            start = 0
            while start < len(hashes):
                end = min(len(hashes), start + source.randint(16, 64))
                parent = hashes[start - 1] if start else None
                event = stored(tokens[start * BLOCK : end * BLOCK], hashes[start:end], parent)
                payloads.append(payload([event]))
                start = end
        made.append(payloads)
    return made


def _sequences_of(workers: int, messages: int, blocks: int, groups: int) -> Payloads:
    """Each worker stores so many messages of new blocks, in one event for each cache group."""
    kinds = ("sliding_window", "full_attention", "sliding_window")
    made: Payloads = []
    for worker in range(workers):
        payloads, parent = [], None
        for number in range(messages):
            tokens, hashes = _sequence(worker, number, blocks)
            fields = {
                "type": "BlockStored",
                "block_hashes": hashes,
                "parent_block_hash": parent,
                "token_ids": tokens,
                "block_size": BLOCK,
                "medium": "GPU",
                "extra_keys": [None] * blocks,
            }
            payloads.append(
                payload(
                    [
                        {**fields, "group_idx": group, "kv_cache_spec_kind": kinds[group - 2]}
                        for group in range(groups)
                    ]
                )
            )
            parent = hashes[-1] if number % 16 != 15 else None
        made.append(payloads)
    return made


@contextmanager
def publishers(workers: int) -> Iterator[list[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        sockets = [context.socket(zmq.XPUB) for _ in range(workers)]
        for socket in sockets:
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind("tcp://127.0.0.1:*")
        yield sockets
        for socket in sockets:
            socket.close()


def publish(
    sockets: list[zmq.Socket[bytes]], payloads: Payloads, on_some: Callable[[dict[int, int]], None]
) -> None:
    """Publish in turns; `on_some` gets each worker's newest number now and then, and at the end."""
    for socket in sockets:
        assert socket.poll(30_000), "nobody has subscribed"
    published = 0
    last: dict[int, int] = {}
    for number in range(max(map(len, payloads))):
        for worker, socket in enumerate(sockets):
            if number < len(payloads[worker]):
                topic = f"kv@10.0.0.{worker}:8000@{MODEL}".encode()
                parts = [topic, number.to_bytes(8, "big"), payloads[worker][number]]
                socket.send_multipart(parts)
                last[worker] = number
                published += 1
                if published % 500 == 0:
                    on_some(last)


def _take_in(payloads: Payloads, *, paced: bool = False, wait: float = 0.5) -> Taken:
    """Our side; paced: 500 messages at a time. wait: seconds until memory is looked at."""
    with publishers(len(payloads)) as sockets, our_process(sockets) as service:
        pid = service.process.pid
        cpu, resident = service.cpu, resident_bytes(pid)
        publish(sockets, payloads, _waiting(service) if paced else lambda _: None)
        wait_for(service, {worker: len(p) - 1 for worker, p in enumerate(payloads)})
        used = service.cpu - cpu
        time.sleep(wait)
        return Taken(used, resident_bytes(pid) - resident)


def _waiting(service: Process) -> Callable[[dict[int, int]], None]:
    return lambda last: wait_for(service, last)


@contextmanager
def peer_process(python: str, sockets: list[zmq.Socket[bytes]]) -> Iterator[tuple[int, str]]:
    """The peer, connected to these publishers: the id of its process, and its port."""
    with zmq.Context() as context:
        free = context.socket(zmq.PUB)
        free.bind("tcp://127.0.0.1:*")
        port = free.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
        free.close()
    command = [python, "-m", "dynamo.indexer", "--port", port]
    environment = {**os.environ, "DYN_LOG": "error"}
    peer = subprocess.Popen(command, env=environment, stdout=-3, stderr=-3)
    try:
        for worker, socket in enumerate(sockets):
            endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            fields = {"instance_id": worker, "endpoint": endpoint, "model_name": MODEL}
            call_peer(port, "register", {**fields, "block_size": BLOCK})
        while any(worker["status"] != "active" for worker in call_peer(port, "workers")):
            time.sleep(0.05)
        yield peer.pid, port
    finally:
        peer.kill()
        peer.wait()


def until_idle(pid: int) -> float:
    """Wait until a process has had nothing to do for half a second; the CPU-seconds it has used."""
    still, before = 0, -1.0
    while still < 5:
        time.sleep(0.1)
        now = cpu_seconds(pid)
        still, before = (still + 1 if now - before < 0.005 else 0), now
    return before


def _take_in_at_peer(python: str, payloads: Payloads) -> Taken:
    with publishers(len(payloads)) as sockets, peer_process(python, sockets) as (pid, _):
        cpu, resident = cpu_seconds(pid), resident_bytes(pid)
        publish(sockets, payloads, lambda _: None)
        return Taken(until_idle(pid) - cpu, resident_bytes(pid) - resident)


@contextmanager
def our_process(sockets: list[zmq.Socket[bytes]]) -> Iterator[Process]:
    """Our side, connected to these publishers."""
    connect = [
        f"--connect=10.0.0.{worker}:8000={socket.getsockopt_string(zmq.LAST_ENDPOINT)}"
        for worker, socket in enumerate(sockets)
    ]
    with kvatlas(*connect, f"--default-model={MODEL}") as service:
        yield service


def call_peer(port: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data)
    request.add_header("Content-Type", "application/json")
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _median_cpu(runs: list[Taken]) -> float:
    return statistics.median(run.cpu for run in runs)


def peer_rows(python: str) -> None:
    for workers in (8, 64):
        payloads, pairs = _shared_prefixes(workers), workers * BLOCKS
        ours: list[Taken] = []
        theirs: list[Taken] = []
        for _ in range(ROUNDS):  # taking turns
            ours.append(_take_in(payloads))
            theirs += [_take_in_at_peer(python, payloads)] if python else []
        cpu = _median_cpu(ours)
        other = "no peer here: see benchmarks/peer.py"
        if theirs:
            other = f"Rust peer: {pairs / _median_cpu(theirs):,.0f} /CPU-s"
        ratio = _median_cpu(theirs) / cpu if theirs else None
        name = f"peer: blocks taken in, {workers} workers"
        row(name, f"{pairs / cpu:,.0f} /CPU-s", other, ratio, ">= 1.5 x the peer")
    paced = _take_in(payloads, paced=True).growth / pairs
    row("peer: memory per (block, worker), paced", f"{paced:.0f} B", "", None, "<= 40 B")
    burst = _take_in(payloads, wait=60).growth / pairs
    other = f"paced: {paced:.0f} B"
    if theirs:
        other += f"; Rust peer at once: {theirs[-1].growth / pairs:.0f} B"
    row("peer: the same a minute after all at once", f"{burst:.0f} B", other, None, "<= 64 B")


def group_rows() -> None:
    """Blocks of three cache groups beside blocks of one, each block counted once."""
    cpus = []
    for groups in (1, 3):
        payloads = _sequences_of(8, 500, 64, groups)
        cpus.append(_median_cpu([_take_in(payloads) for _ in range(ROUNDS)]))
    blocks = 8 * 500 * 64
    row(
        "groups: blocks of three cache groups taken in",
        f"{blocks / cpus[1]:,.0f} /CPU-s",
        f"one group: {blocks / cpus[0]:,.0f} /CPU-s",
        cpus[0] / cpus[1],
        ">= 0.6",
    )
