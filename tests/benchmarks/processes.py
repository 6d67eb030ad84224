"""What several processes cost together, and how far two of them differ.

Each figure is beside that of one process without a store, in the same run. CPU is that of all
processes, of the supervisor and of their store, by what ran.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import zmq
from benchmarks.kernel import PROMPTS
from benchmarks.rows import cpu_seconds, percentile, row
from benchmarks.service import (
    MODEL,
    Process,
    chain,
    filled,
    frame,
    kvatlas,
    packed_requests,
    publisher,
    stored,
    wait_for,
)
from kvatlas.v1 import scoring_pb2

_SCORE = "/kvatlas.v1.ScoringService/Score"
_CONNECTIONS = 8
_ROUNDS = 7
_STEPS = 300  # blocks whose way into both indexes is timed
_LONGEST_PROMPT = 100
_IDLE_SECONDS = 0.5


class Cpu(NamedTuple):
    """CPU seconds, by what used them."""

    first: float
    """The process that hears the pods."""
    others: float
    supervisor: float
    store: float


def process_rows() -> None:
    """All of them."""
    one, both = _score_cost(1), _score_cost(2)
    row(
        "Score of 8,192 ids, 8 pods, two processes",
        f"{sum(both):.0f} us",
        f"one process: {sum(one):.0f} us",
        sum(both) / sum(one),
        f"each {both.first:.0f} and {both.others:.0f} of it",
    )
    costs = {}
    for name, messages, blocks in (("64 blocks", 4_000, 64), ("one block", 20_000, 1)):
        alone, shared = (_event_cost(number, messages, blocks) for number in (1, 2))
        costs[name] = alone, shared
        row(
            f"a message of {name}, two processes",
            f"{sum(shared):.0f} us",
            f"one process: {sum(alone):.0f} us",
            sum(shared) / sum(alone),
            f"hears {shared.first:.0f}, copies {shared.others:.0f}, store {shared.store:.0f}",
        )
    for name, is_busy in (("idle", False), ("beside 20,000 blocks/s", True)):
        _lag_row(name, is_busy=is_busy)
    alone, shared = costs["one block"]
    print(
        f"model: N processes answer R requests and take in E messages of one block a second with\n"
        f"  R x {sum(both):.0f} us + E x ({shared.first:.0f} + {shared.others:.0f} x (N-1) + "
        f"{shared.store:.0f}) us of CPU; one process without a store with R x {sum(one):.0f} us + "
        f"E x {sum(alone):.0f} us"
    )


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _used(service: Process) -> Cpu:
    """What has been used until now."""
    pid = service.process.pid
    serving, store = [], 0.0
    for child in _children(pid):
        if "--process" in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
            serving.append(child)
        else:  # a shell, which runs the store
            store += sum(map(cpu_seconds, [child, *_children(child)]))
    if not serving:
        return Cpu(cpu_seconds(pid), 0.0, 0.0, store)
    first, *others = map(cpu_seconds, sorted(serving))
    return Cpu(first, sum(others), cpu_seconds(pid), store)


def _until_idle(service: Process) -> Cpu:
    """Wait until nothing but heartbeats runs; what has been used."""
    before = _used(service)
    while True:
        time.sleep(_IDLE_SECONDS)
        now = _used(service)
        if sum(now) - sum(before) < 0.02 * _IDLE_SECONDS:
            return now
        before = now


def _per(service: Process, count: int, work: Callable[[], None]) -> Cpu:
    """CPU microseconds of each of `count` things that `work` does, beyond an idle service's."""
    idle, since = _until_idle(service), time.perf_counter()
    time.sleep(1)
    rested, seconds = _used(service), time.perf_counter() - since
    rates = [(now - then) / seconds for now, then in zip(rested, idle, strict=True)]
    before, since = _used(service), time.perf_counter()
    work()
    used, seconds = _until_idle(service), time.perf_counter() - since
    return Cpu(
        *(
            max(0.0, now - then - rate * seconds) / count * 1e6
            for now, then, rate in zip(used, before, rates, strict=True)
        )
    )


@contextmanager
def _connections(service: Process) -> Iterator[list[Any]]:
    """Score calls, each over a connection of its own."""
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        calls: list[Any] = []
        for _ in range(_CONNECTIONS):
            channel = stack.enter_context(grpc.insecure_channel(service.address, options))
            grpc.channel_ready_future(channel).result(timeout=30)
            calls.append(channel.unary_unary(_SCORE))
        yield calls


def _score_cost(processes: int) -> Cpu:
    requests = packed_requests()
    count = _ROUNDS * 12 * PROMPTS

    def ask() -> None:
        for number in range(count):
            calls[number % _CONNECTIONS](requests[number % PROMPTS])

    with (
        kvatlas(processes=processes) as service,
        filled(service, 8),
        _connections(service) as calls,
    ):
        _until_idle(service)
        ask()  # a warm-up
        return _per(service, count, ask)


def _event_cost(processes: int, messages: int, blocks: int) -> Cpu:
    frames = chain(random.Random(3), messages, blocks)

    def publish() -> None:
        for parts in frames:
            socket.send_multipart(parts)
        wait_for(service, {1: messages - 1})

    with kvatlas(processes=processes) as service, publisher(service) as socket:
        return _per(service, messages, publish)


def _lag_row(name: str, *, is_busy: bool) -> None:
    """How much later the process that copies knows a block than the one that hears of it."""
    source = random.Random(5)
    tokens = [source.randrange(128_000) for _ in range(16 * _STEPS)]
    later = []
    with kvatlas(processes=2) as service, publisher(service) as socket:
        socket.send_multipart(frame(2, 0, stored(tokens[:16], [1])))
        with _connections(service) as (one, other, *_), _busy(service, is_busy=is_busy):
            _until_matched(one, tokens[:16])
            _until_matched(other, tokens[:16])
            for number in range(1, _STEPS):
                start = number - number % _LONGEST_PROMPT
                prompt = tokens[16 * start : 16 * (number + 1)]
                parent = None if number == start else number
                event = stored(prompt[-16:], [number + 1], parent)
                socket.send_multipart(frame(2, number, event))
                later.append(abs(_apart(one, other, prompt)))
    row(
        f"two processes differ, {name}",
        f"{percentile(later, 0.5) * 1e3:.1f} ms",
        f"p99: {percentile(later, 0.99) * 1e3:.1f} ms, longest: {max(later) * 1e3:.1f} ms",
        None,
        "median, until both know a block",
    )


@contextmanager
def _busy(service: Process, *, is_busy: bool) -> Iterator[None]:
    """Within this block another pod stores 20,000 blocks a second, if that is wanted."""
    over = threading.Event()
    frames = iter(chain(random.Random(6), 8_000 if is_busy else 0, 64))

    def publish(socket: zmq.Socket[bytes]) -> None:
        for parts in frames:
            socket.send_multipart(parts)
            if over.wait(64 / 20_000):
                return

    with publisher(service) as socket:
        thread = threading.Thread(target=publish, args=[socket])
        thread.start()
        yield
        over.set()
        thread.join()


def _matches(call: Any, prompt: list[int]) -> bool:
    request = scoring_pb2.ScoreRequest(model=MODEL)
    request.prompt.token_ids.ids.extend(prompt)
    try:
        answer = scoring_pb2.ScoreResponse.FromString(call(request.SerializeToString()))
    except grpc.RpcError:  # nothing of the model has been heard
        return False
    return any(pod.matched_blocks == len(prompt) // 16 for pod in answer.pods)


def _until_matched(call: Any, prompt: list[int]) -> None:
    while not _matches(call, prompt):
        time.sleep(0.001)


def _apart(one: Any, other: Any, prompt: list[int]) -> float:
    """Seconds between the answers of two processes that know a block, the first ones."""
    known: dict[int, float] = {}
    while len(known) < 2:
        for number, call in enumerate((one, other)):
            if number not in known and _matches(call, prompt):
                known[number] = time.perf_counter()
    return known[1] - known[0]
