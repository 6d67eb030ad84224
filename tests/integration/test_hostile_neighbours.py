"""An honest fleet and honest callers beside each attack: real processes, sockets and channels.

Honest calls are answered in time, memory stays within its bounds, and nothing exact is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.attacks.events import ATTACKS, HONEST_PODS, MODEL, message, stored
from support.deadlines import DEADLINE_SECONDS
from support.services.process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024**2
PODS = HONEST_PODS
BLOCKS = 32
# index, queue, waiting, and what ZMQ holds of two connections
BOUND_BYTES = (64 + 16 + 32 + 2 * 16 * 2) * MIB
SETTINGS = """
[index]
limit = "64MiB"
pod_share = 0.5
[events]
queue_bytes = "16MiB"
waiting_limit = "32MiB"
frame_bytes = "1MiB"
pods = 200
models = 20
ranks = 16
connection_workers = 150
"""


def tokens_of(pod: int, blocks: int = BLOCKS) -> list[int]:
    return [1_000 * pod + block for block in range(blocks) for _ in range(16)]


class HonestFleet:
    """Pods that hold the first `BLOCKS` blocks of a prompt of their own, and go on publishing."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._sockets = [context.socket(zmq.XPUB) for _ in PODS]
        for socket in self._sockets:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
        self._sequence = 0

    async def begin(self) -> None:
        for socket in self._sockets:
            assert await asyncio.to_thread(socket.poll, int(DEADLINE_SECONDS * 1000))
            socket.recv()
        for number, socket in enumerate(self._sockets):
            hashes = list(range(1, BLOCKS + 1))
            socket.send_multipart(message(PODS[number], 0, [stored(hashes, tokens_of(number))]))

    def publish(self) -> None:
        """Store one more block, and remove it with the next call."""
        self._sequence += 1
        for number, socket in enumerate(self._sockets):
            new, old = 1_000 + self._sequence, 999 + self._sequence
            events = [stored([new], [1_000_000 + self._sequence] * 16)]
            if self._sequence > 1:
                events.append({"type": "BlockRemoved", "block_hashes": [old], "medium": "GPU"})
            socket.send_multipart(message(PODS[number], self._sequence, events))

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()


class HonestCaller:
    """Scores the prompts of the honest pods, and notes what comes of it."""

    def __init__(self, channel: grpc.aio.Channel, deadline: float) -> None:
        self._stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        self._deadline = deadline
        self.calls = self.failures = self.exact = 0
        self.wrong: list[str] = []

    async def score(self, number: int) -> None:
        ids = scoring_pb2.TokenIds(ids=tokens_of(number))
        request = scoring_pb2.ScoreRequest(
            model=MODEL, prompt=scoring_pb2.Prompt(token_ids=ids), pods=PODS
        )
        self.calls += 1
        try:
            answer = await self._stub.Score(request, timeout=self._deadline)
        except grpc.aio.AioRpcError:
            self.failures += 1
            return
        for score in answer.pods:
            if score.trust_state == TRUST_STATE_EXACT:
                self.exact += 1
                expected = BLOCKS if score.pod == PODS[number] else 0
                if score.matched_blocks != expected:
                    self.wrong.append(f"{score.pod} has {score.matched_blocks} of {expected}")


@contextlib.contextmanager
def attacker(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 2)
        socket.connect(endpoint)
        yield socket


async def send_for(socket: zmq.Socket[bytes], name: str, seconds: float) -> int:
    """Send the messages of an attack as fast as they are taken; returns how many."""

    def send() -> int:
        sent, end = 0, time.monotonic() + seconds
        for parts in ATTACKS[name]():
            if time.monotonic() > end:
                break
            if socket.poll(50, zmq.POLLOUT):
                socket.send_multipart(parts, zmq.NOBLOCK)
                sent += 1
        return sent

    return await asyncio.to_thread(send)


def resident_bytes(process: ServiceProcess) -> int:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def under_attack(tmp_path: Path, name: str, seconds: float, deadline: float) -> HonestCaller:
    """Play one attack; asserts what holds whatever the machine does."""
    config = tmp_path / "kvatlas.toml"
    config.write_text(SETTINGS)
    service = ServiceProcess(f"--config={config}")
    assert service.process.stderr is not None
    log = threading.Thread(target=service.process.stderr.read)  # a full pipe would stop the service
    log.start()
    try:
        with zmq.Context() as context:
            async with grpc.aio.insecure_channel(service.address) as channel:
                caller = HonestCaller(channel, deadline)
                fleet = HonestFleet(context, service.events)
                await fleet.begin()
                patient = HonestCaller(channel, DEADLINE_SECONDS)
                async with asyncio.timeout(DEADLINE_SECONDS):
                    while patient.exact < len(PODS):
                        await patient.score(0)
                before, most = resident_bytes(service), 0
                with attacker(context, service.events) as socket:
                    attack = asyncio.create_task(send_for(socket, name, seconds))
                    while not attack.done():
                        fleet.publish()
                        await caller.score(caller.calls % len(PODS))
                        most = max(most, resident_bytes(service))
                        await asyncio.sleep(0.005)
                    sent = await attack
                assert sent
                assert most - before <= 1.2 * BOUND_BYTES
                assert not caller.wrong
                last = HonestCaller(channel, DEADLINE_SECONDS)
                async with asyncio.timeout(DEADLINE_SECONDS):  # the fleet is what it was
                    while last.exact < len(PODS):
                        await last.score(0)
                assert not last.wrong
                fleet.close()
                print(name, sent, caller.calls, caller.failures, (most - before) // MIB)
    finally:
        service.process.kill()
        log.join(DEADLINE_SECONDS)
        service.process.wait(DEADLINE_SECONDS)
        service.process.stderr.close()
    return caller


@pytest.mark.parametrize("name", ATTACKS)
async def test_honest_callers_are_answered_beside_an_attack(name: str, tmp_path: Path) -> None:
    caller = await under_attack(tmp_path, name, seconds=1.5, deadline=DEADLINE_SECONDS)
    assert caller.failures == 0


@pytest.mark.soak
@pytest.mark.parametrize("name", ATTACKS)
async def test_honest_callers_are_answered_in_time_beside_an_attack(
    name: str, tmp_path: Path
) -> None:
    caller = await under_attack(tmp_path, name, seconds=20.0, deadline=0.02)
    assert caller.calls >= 200
    assert caller.failures <= 0.01 * caller.calls
