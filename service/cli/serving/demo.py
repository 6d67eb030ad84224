"""`kvatlas demo`: events in, scores out, in a few seconds, with pods that really publish."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import grpc
import zmq
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc, scoring_pb2, scoring_pb2_grpc

from kvevents.tools import SimulatedPod
from service.application import Application
from service.cli.screen import answers
from service.cli.screen.tables import show
from service.cli.serving.signals import run_until_signalled
from service.config import load
from service.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.cli.flags.command import Options

_MODEL = "demo/model"
_WAIT_SECONDS = 20.0


def demo(options: Options) -> int:
    """Run the demo. Returns the exit status."""
    if options.into:
        from service.cli.serving.feeding import feed  # it needs a client, this a whole service

        return feed(options)
    return run_until_signalled(_demo(options.pods, options.turns))


async def _demo(pod_count: int, turns: int) -> int:
    """Start the service and pods, serve a few chats turn by turn, and show which pod holds what."""
    configuration = load(
        None,
        {
            "grpc": {"listen": ["127.0.0.1:0"], "drain_seconds": 1},
            "admin": {"listen": ["127.0.0.1:0"]},
            "metrics": {"listen": ""},
            "log": {"level": "warning", "format": "human"},
            "sources": [{"endpoint": "tcp://127.0.0.1:0", "bind": True}],
        },
    )
    configure_logs(configuration.log)
    async with AsyncExitStack() as stack:
        application = await stack.enter_async_context(Application(configuration))
        print(f"kvatlas answers gRPC on {application.addresses[0]}")
        channel, admin = [
            await stack.enter_async_context(grpc.aio.insecure_channel(addresses[0]))
            for addresses in (application.addresses, application.admin_addresses)
        ]
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        pods = [
            await stack.enter_async_context(
                SimulatedPod(context, f"10.0.0.{n}:8000", _MODEL, application.endpoints[0])
            )
            for n in range(1, pod_count + 1)
        ]
        for pod in pods:
            await pod.wait_for_subscriber(_WAIT_SECONDS)
        print(f"{pod_count} simulated pods publish their KV events to {application.endpoints[0]}\n")
        await _play(channel, admin, pods, turns)
    print("\nstopped; `kvatlas serve --help` shows how to use it with real pods")
    return 0


async def _play(
    channel: grpc.aio.Channel, admin: grpc.aio.Channel, pods: Sequence[SimulatedPod], turns: int
) -> None:
    """Serve chats that share a system prompt, each on one pod, which caches its blocks."""
    random_ids = random.Random(7)  # noqa: S311 - token ids, no secret
    system = _ids(random_ids, 400)
    chats = [[*system, *_ids(random_ids, 60)] for _ in range(len(pods) + 1)]
    print(f"{len(chats)} chats with one system prompt of 400 tokens, {turns} turns each:")
    for turn, number in itertools.product(range(1, turns + 1), range(len(chats))):
        if turn > 1:
            chats[number] += _ids(random_ids, 120)
        pod = pods[number % len(pods)]
        hit = pod.serve(chats[number])
        await asyncio.sleep(0)  # the service takes the events; Ctrl-C ends the demo
        print(
            f"  turn {turn} of chat {number}: pod {pod.name} has {hit} of "
            f"{len(chats[number])} tokens cached"
        )
    await _all_arrived(admin, len(pods))
    stub = scoring_pb2_grpc.ScoringServiceStub(channel)
    question = [*chats[0], *_ids(random_ids, 50)]
    for title, tokens in (
        ("the next turn of chat 0", question),
        ("a new chat with the same system prompt", [*system, *_ids(random_ids, 80)]),
        ("a prompt that no pod has seen", _ids(random_ids, 200)),
    ):
        request = scoring_pb2.ScoreRequest(
            model=_MODEL, prompt=scoring_pb2.Prompt(token_ids=scoring_pb2.TokenIds(ids=tokens))
        )
        start = time.perf_counter()
        answer = await stub.Score(request)
        elapsed = (time.perf_counter() - start) * 1000
        print(f"\nScore for {title} ({elapsed:.1f} ms):")
        show(*answers.scores(answer))
    print("\nkvatlas pods:")
    fleet = fleet_pb2_grpc.FleetServiceStub(admin)
    show(*answers.pods(await fleet.ListPods(fleet_pb2.ListPodsRequest())))


def _ids(source: random.Random, count: int) -> list[int]:
    return [source.randrange(128_000) for _ in range(count)]


async def _all_arrived(admin: grpc.aio.Channel, pods: int) -> None:
    """Wait until events of every pod have arrived, and no more arrive."""
    stub = fleet_pb2_grpc.FleetServiceStub(admin)
    deadline = time.monotonic() + _WAIT_SECONDS
    before = None
    while time.monotonic() < deadline:
        answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
        sequences = [rank.last_sequence for pod in answer.pods for rank in pod.ranks]
        if len(sequences) == pods and sequences == before:
            return
        before = sequences
        await asyncio.sleep(0.05)
