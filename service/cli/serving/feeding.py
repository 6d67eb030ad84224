"""`kvatlas demo --into`: simulated pods feed a running service, and chats follow its scores."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import zmq
from kvatlas.v1 import scoring_pb2
from kvatlas_client import KvatlasError

from kvevents.tools import SimulatedPod
from service.cli.calling.calls import failed, open_client
from service.cli.connection import UsageError
from service.cli.serving.signals import run_until_signalled
from service.terminal import complain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.cli.calling.calls import CommandClient
    from service.cli.flags.command import Options

_MODEL = "demo/model"
_BLOCKS = 2048  # of a pod's cache
_WAIT_SECONDS = 10.0
_SYSTEM_TOKENS, _FIRST_TOKENS, _TURN_TOKENS, _LONGEST = 400, 60, 120, 4000


class Served(NamedTuple):
    """One request, and what came of it."""

    tokens: int
    pod: str
    promised: int
    """Tokens that the service said the pod would reuse."""
    cached: int
    """Tokens that the pod had."""


def feed(options: Options) -> int:
    """Publish until this is interrupted, or for some turns. Returns the exit status."""
    try:
        client = open_client(options)
    except UsageError as error:
        complain(str(error))
        return 2
    with client:
        try:
            return run_until_signalled(_feed(options, client))
        except KvatlasError as error:
            return failed(error, client.address)


async def _feed(options: Options, client: CommandClient) -> int:
    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        try:
            pods = [
                await stack.enter_async_context(
                    SimulatedPod(context, f"demo-{n}:8000", _MODEL, options.into, _BLOCKS)
                )
                for n in range(1, options.pods + 1)
            ]
        except zmq.ZMQError as error:
            complain(
                f"cannot connect to {options.into}: {error.strerror}; it is the endpoint that "
                "kvatlas serve --bind names, such as tcp://127.0.0.1:5557"
            )
            return 2
        for pod in pods:
            if not await pod.wait_for_subscriber(_WAIT_SECONDS):
                complain(
                    f"no kvatlas takes events at {options.into}: start it with "
                    "kvatlas serve --bind 'tcp://*:5557'"
                )
                return 1
        print(f"{len(pods)} simulated pods publish to {options.into} as {_MODEL}; Ctrl-C ends them")
        served: list[Served] = []
        try:
            await _chat(client, pods, options, served)
        finally:
            _sum_up(served)
    return 0


async def _chat(
    client: CommandClient, pods: Sequence[SimulatedPod], options: Options, served: list[Served]
) -> None:
    """Send each request where most of it is cached, or anywhere, as a gateway does."""
    source = random.Random(7)  # noqa: S311 - token ids, no secret
    turns = itertools.count() if options.endless else range(options.turns)
    chats, by_name = _chats(source, len(pods) + 1), {pod.name: pod for pod in pods}
    turn = itertools.cycle(pods)
    for _ in turns:
        for number, tokens in next(chats):
            request = scoring_pb2.ScoreRequest(model=_MODEL, pods=by_name)
            request.prompt.token_ids.ids.extend(tokens)
            answer = await asyncio.to_thread(client.score, request)
            held = {pod.pod: pod.reusable_tokens for pod in answer.pods}
            best = max(held, key=held.__getitem__, default="")
            if held.get(best, 0) <= _SYSTEM_TOKENS:
                best = next(turn).name  # no pod is crowded for what all chats have in common
            chosen, promised = by_name[best], held.get(best, 0)
            request_served = Served(len(tokens), chosen.name, promised, chosen.serve(tokens))
            served.append(request_served)
            print(
                f"  chat {number}: {request_served.tokens} tokens to {request_served.pod}, which "
                f"had {request_served.cached} cached; promised were {request_served.promised}",
                flush=True,
            )
            await asyncio.sleep(1 / options.rate)


def _chats(source: random.Random, count: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Turn by turn, the prompts of some chats that share a system prompt."""
    system = _ids(source, _SYSTEM_TOKENS)
    chats: dict[int, list[int]] = {}
    while True:
        for number in range(count):
            known = chats.get(number)
            if known is None or len(known) > _LONGEST:
                chats[number] = [*system, *_ids(source, _FIRST_TOKENS)]
            else:
                known += _ids(source, _TURN_TOKENS)
        yield [(number, list(tokens)) for number, tokens in chats.items()]


def _ids(source: random.Random, count: int) -> list[int]:
    return [source.randrange(128_000) for _ in range(count)]


def _sum_up(served: Sequence[Served]) -> None:
    tokens = sum(each.tokens for each in served)
    if tokens:
        cached, promised = sum(s.cached for s in served), sum(s.promised for s in served)
        print(
            f"\n{len(served)} requests with {tokens} tokens: {cached / tokens:.0%} were cached, "
            f"{promised / tokens:.0%} were promised"
        )
