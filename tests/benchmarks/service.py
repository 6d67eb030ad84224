"""Events and calls against a service in a process of its own."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import msgpack
import zmq
from benchmarks.kernel import PROMPTS, prompts
from benchmarks.rows import cpu_seconds, percentile, row
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2

MODEL = "bench"
EMPTY_SERVER = """
import asyncio, json, sys, grpc
async def main():
    async def answer(request, context):
        return b""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Empty", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    said = json.dumps({"event": "serving", "addresses": [f"127.0.0.1:{port}"]})
    print(said, file=sys.stderr, flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


class Process:
    """A server process that says in its log where it listens.

    processes: how many serve, which it has started then.
    """

    def __init__(self, *command: str, processes: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.events = ""
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] == "subscribed":
                self.events = entry["endpoint"]
            if entry["event"] == "serving":
                self.address = entry["addresses"][0]
                self.admin = grpc.insecure_channel(
                    entry.get("admin_addresses", entry["addresses"])[0]
                )
                processes -= 1
                if not processes:
                    break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.channel = grpc.insecure_channel(self.address)
        grpc.channel_ready_future(self.channel).result(timeout=30)

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def stop(self) -> None:
        self.channel.close()
        self.admin.close()
        self.process.terminate()
        self.process.wait(timeout=30)


@contextmanager
def kvatlas(*arguments: str, processes: int = 1) -> Iterator[Process]:
    running = Process(
        "-P",
        "-m",
        "service",
        "serve",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--metrics-listen=",
        "--bind=tcp://127.0.0.1:0",
        "--log-format=json",
        "--index-limit=8GiB",
        f"--processes={processes}",
        *arguments,
        processes=processes,
    )
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def publisher(service: Process) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context:
        socket = context.socket(zmq.XPUB)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(service.events)
        assert socket.poll(30_000)
        yield socket
        socket.close()


def stored(tokens: list[int], hashes: list[int], parent: int | None = None) -> dict[str, object]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * len(hashes),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }


def frame(pod: int, sequence: int, event: dict[str, object]) -> list[bytes]:
    topic = f"kv@10.0.0.{pod}:8000@{MODEL}".encode()
    return [topic, sequence.to_bytes(8, "big"), msgpack.packb([1.0, [event], 0])]


def wait_for(service: Process, last: dict[int, int]) -> None:
    stub: Any = fleet_pb2_grpc.FleetServiceStub(service.admin)
    while True:
        pods = {p.pod: p.ranks[0] for p in stub.ListPods(fleet_pb2.ListPodsRequest()).pods}
        if all(
            pods.get(f"10.0.0.{pod}:8000", fleet_pb2.Rank()).last_sequence >= sequence
            for pod, sequence in last.items()
        ):
            return
        time.sleep(0.02)


def chain(source: random.Random, messages: int, blocks: int) -> list[list[bytes]]:
    """Frames of one pod: each stores `blocks` new blocks of a sequence of its own."""
    frames = []
    for number in range(messages):
        tokens = [source.randrange(128_000) for _ in range(16 * blocks)]
        hashes = [source.getrandbits(64) for _ in range(blocks)]
        frames.append(frame(1, number, stored(tokens, hashes)))
    return frames


def event_rows() -> None:
    for name, messages, blocks, unit, target in (
        ("events: 64 blocks x 16 tokens a message", 12_000, 64, "blocks", 1_500_000),
        ("events: one block a message", 100_000, 1, "messages", 60_000),
    ):
        frames = chain(random.Random(3), messages, blocks)
        with kvatlas() as service, publisher(service) as socket:
            # Kept waiting by one long slice, then drained at full speed, as after a burst.
            before = service.cpu
            for parts in frames:
                socket.send_multipart(parts)
            wait_for(service, {1: messages - 1})
            used = service.cpu - before
        start = time.process_time()
        for parts in frames[: messages // 20]:
            msgpack.unpackb(parts[2])
        unpacking = (time.process_time() - start) * 20
        count = messages * (blocks if unit == "blocks" else 1)
        row(
            name,
            f"{count / used:,.0f} /CPU-s",
            f"msgpack decoding alone: {count / unpacking:,.0f} /CPU-s",
            unpacking / used,
            f">= {target:,} {unit} per CPU-second",
        )


def _requests(packed: bool) -> list[bytes]:
    made = []
    for tokens in prompts(8192):
        request = scoring_pb2.ScoreRequest(model=MODEL)
        if packed:
            request.prompt.packed_token_ids = struct.pack(f"<{len(tokens)}I", *tokens)
        else:
            request.prompt.token_ids.ids.extend(tokens)
        made.append(request.SerializeToString())
    return made


def packed_requests() -> list[bytes]:
    """Requests about 16 prompts of 8,192 packed token ids."""
    return _requests(packed=True)


@contextmanager
def filled(service: Process, pods: int) -> Iterator[None]:
    """Within this block the pods are connected, and each holds all 16 prompts."""
    with publisher(service) as socket:
        for pod in range(pods):
            for number, tokens in enumerate(prompts(8192)):
                hashes = array("Q", random.Random(number).randbytes(8 * 512)).tolist()
                socket.send_multipart(frame(pod, number, stored(tokens.tolist(), hashes)))
        wait_for(service, dict.fromkeys(range(pods), PROMPTS - 1))
        yield


def _cpu_us(service: Process, call: Callable[[bytes], object], requests: list[bytes]) -> float:
    """Server CPU microseconds a call, median of several rounds."""
    rounds = []
    for _ in range(7):
        before = service.cpu
        for _ in range(12):
            for request in requests:
                call(request)
        rounds.append((service.cpu - before) / (12 * len(requests)) * 1e6)
    return sorted(rounds)[len(rounds) // 2]


def rpc_rows() -> None:
    empty = Process("-c", EMPTY_SERVER)
    try:
        call: Any = empty.channel.unary_unary("/bench.Empty/Call")
        yardstick = _cpu_us(empty, call, [b""] * PROMPTS)
    finally:
        empty.stop()
    for packed, pods, target in ((True, 8, 1.35), (False, 8, 1.6), (True, 64, 1.7)):
        with kvatlas() as service, filled(service, pods):
            call = service.channel.unary_unary("/kvatlas.v1.ScoringService/Score")
            used = _cpu_us(service, call, _requests(packed))
        form = "packed ids" if packed else "repeated uint32"
        row(
            f"Score RPC, server CPU, 8,192 {form}, {pods} pods",
            f"{used:.0f} us",
            f"T, an empty call: {yardstick:.0f} us",
            used / yardstick,
            f"<= {target} x T",
        )


def latencies_us(call: Any, requests: list[bytes], seconds: float) -> list[float]:
    """How long each call took, one after the other for so long."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call(requests[len(found) % len(requests)])
        found.append((time.perf_counter() - start) * 1e6)
    return found


def storm_row() -> None:
    """Score latency while 50,000 blocks a second arrive, against the same service idle."""
    frames = chain(random.Random(4), 8_000, 64)
    requests = _requests(packed=True)
    with kvatlas() as service, publisher(service) as socket, filled(service, 8):
        call: Any = service.channel.unary_unary("/kvatlas.v1.ScoringService/Score")

        latencies_us(call, requests, 1)
        idle = percentile(latencies_us(call, requests, 6), 0.99)
        stop = threading.Event()

        def storm() -> None:
            begun = time.perf_counter()
            for number, parts in enumerate(frames):
                wait = begun + number * 64 / 50_000 - time.perf_counter()
                if stop.wait(max(0.0, wait)):
                    return
                socket.send_multipart(parts)

        thread = threading.Thread(target=storm)
        thread.start()
        busy = percentile(latencies_us(call, requests, 6), 0.99)
        stop.set()
        thread.join()
    row(
        "Score p99 while 50,000 blocks/s arrive",
        f"{busy:.0f} us",
        f"idle: {idle:.0f} us",
        busy / idle,
        "<= 2 x idle",
    )
