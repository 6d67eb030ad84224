"""More events than are taken: memory stays bounded, and what is lost is counted and marked."""

from __future__ import annotations

import asyncio

import msgpack
import zmq
from kvatlas.v1.trust_pb2 import TRUST_STATE_DEGRADED
from support.deadlines import DEADLINE_SECONDS
from support.services.running import local_configuration, running_service

POD = ("a:1", 0)
SENT = 20_000


def frame(sequence: int) -> list[bytes]:
    event = {
        "type": "BlockStored",
        "block_hashes": [sequence + 1],
        "parent_block_hash": None,
        "token_ids": [sequence] * 256,
        "block_size": 256,
        "medium": "GPU",
    }
    payload = msgpack.packb([float(sequence), [event, *[event] * 3], 0])
    return [b"kv@a:1@m", sequence.to_bytes(8, "big"), payload]


async def test_frames_lost_in_a_storm_are_counted_and_the_pod_is_not_exact() -> None:
    configuration = local_configuration(
        sources=[{"endpoint": "tcp://127.0.0.1:*", "bind": True}],
        events={"queue_messages": 100},
        index={"block_size": 256},
    )
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, int(DEADLINE_SECONDS * 1000))
        publisher.setsockopt(zmq.SNDHWM, 100)
        async with running_service(configuration) as service:
            publisher.connect(service.application.endpoints[0])
            assert await asyncio.to_thread(publisher.poll, int(DEADLINE_SECONDS * 1000))
            publisher.recv()
            with service.application.listener.paused():
                for sequence in range(SENT):
                    publisher.send_multipart(frame(sequence))
            await service.until(lambda pods: POD in pods)
            sent = SENT
            async with asyncio.timeout(
                DEADLINE_SECONDS
            ):  # until ZMQ has noticed that there is room again
                while (await service.pods())[POD].last_sequence < SENT:
                    publisher.send_multipart(frame(sent))
                    sent += 1
            await service.until(
                lambda pods: (
                    pods[POD].last_sequence == sent - 1
                    and pods[POD].trust_state == TRUST_STATE_DEGRADED
                )
            )
            rank = (await service.pods())[POD]
            assert 0 < rank.live_frames < sent
            assert rank.missed_frames == sent - rank.live_frames
            assert rank.gaps >= 1
            assert rank.blocks_by_tier["gpu"] == rank.live_frames
