"""Generated workloads of naive engines, over real sockets: scores are what the engines hold."""

from __future__ import annotations

import pytest
import zmq
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from support.engines.publisher import Publisher
from support.engines.simulated import Prompt, SimulatedEngine
from support.engines.workload import served_workload
from support.services.running import RunningService, local_configuration, running_service

SEEDS = range(3)
SOAK_SEEDS = range(100, 400)


def request_of(prompt: Prompt, engines: list[SimulatedEngine]) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(
        model="sim/model",
        lora_name=prompt.lora_name or "",
        cache_salt=prompt.cache_salt or "",
        pods=[engine.name for engine in engines],
    )
    request.prompt.token_ids.ids.extend(prompt.tokens)
    for image, offset, length in prompt.images:
        request.prompt.multimodal_items.add(hash=image, offset=offset, length=length)
    return request


async def check_fleet(seed: int, engine_size: int, our_size: int) -> None:
    # Which of our blocks an image is in cannot be told from engine blocks larger than ours.
    images = engine_size <= our_size
    scale = max(1, our_size // engine_size)
    engines, prompts = served_workload(seed, engine_size, scale, pods=4, requests=80, images=images)
    with zmq.Context() as context:
        source = {"endpoint": "tcp://127.0.0.1:0", "bind": True}
        settings = local_configuration(sources=[source], index={"block_size": our_size})
        async with running_service(settings) as service:
            await publish(context, service, engines)
            stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
            found = 0
            for prompt in prompts:
                answer = await stub.Score(request_of(prompt, engines))
                assert not answer.unknown_pods
                for engine, score in zip(engines, answer.pods, strict=True):
                    assert score.pod == engine.name
                    want = engine.resident(prompt) * engine_size // our_size
                    assert score.matched_blocks == want
                    found += want > 0
            assert found > len(prompts) // 5  # or the test would say nothing


async def publish(
    context: zmq.Context[zmq.Socket[bytes]], service: RunningService, engines: list[SimulatedEngine]
) -> None:
    publishers = []
    for engine in engines:
        publisher = Publisher(context, connect=service.application.endpoints[0])
        publishers.append(publisher)
        await publisher.until_subscribed()
        for frame in engine.frames:
            publisher.send(frame)
    await service.until_applied({(e.name, 0): len(e.frames) - 1 for e in engines if e.frames})
    for publisher in publishers:
        publisher.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [8, 32, 64])
async def test_engines_of_any_block_size_score_exactly(size: int, seed: int) -> None:
    await check_fleet(seed, size, size)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("engine_size", "our_size"), [(8, 32), (1, 16), (16, 64)])
async def test_many_engine_blocks_make_one_of_ours(
    engine_size: int, our_size: int, seed: int
) -> None:
    await check_fleet(seed, engine_size, our_size)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("engine_size", "our_size"), [(32, 8), (64, 16)])
async def test_one_engine_block_makes_many_of_ours(
    engine_size: int, our_size: int, seed: int
) -> None:
    await check_fleet(seed, engine_size, our_size)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
async def test_many_generated_fleets_score_exactly(seed: int) -> None:
    sizes = [(16, 16), (8, 8), (64, 64), (8, 32), (1, 16), (32, 16)]
    await check_fleet(seed, *sizes[seed % len(sizes)])
