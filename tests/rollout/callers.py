"""Gateways that score all the time, each call within a deadline."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kvatlas_client import AsyncClient, KvatlasError, Retry, UnavailableError, score_request
from rollout.model_servers import fleet_prompts
from support.engines.model_server import MODEL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kvatlas.v1.scoring_pb2 import ScoreRequest, ScoreResponse

UNARY, STREAMS = 3, 2
"""Clients of each kind, besides one that repeats its calls itself."""
_ATTEMPTS = 4
_PAUSE_SECONDS = 0.01


class Entry(NamedTuple):
    """What an answer says of a pod."""

    matched: int
    state: int
    reason: str
    as_of: int | None


class Call(NamedTuple):
    """A call, with times by `time.monotonic`; `error` is empty if it was answered."""

    kind: str
    prompt: int
    begun: float
    ended: float
    error: str
    entries: dict[str, Entry]


@dataclass
class Callers:
    """Begin a call every `pause` seconds each, whether the one before is answered or not.

    Attributes:
        target: what they connect to.
        pause: seconds between two calls of a client.
        seconds: the deadline of a call.
        calls: every call that has ended.
        repeated: when a call was UNAVAILABLE to the client that repeats calls itself.
        longest_stall: for how many seconds this process did not run, because others did.
    """

    target: str
    pause: float
    seconds: float
    calls: list[Call] = field(default_factory=list)
    repeated: list[float] = field(default_factory=list)
    longest_stall: float = 0.0

    def __post_init__(self) -> None:
        self._requests = [score_request(MODEL, prompt.tokens) for prompt in fleet_prompts()]

    async def run(self, is_over: asyncio.Event) -> None:
        """Call until it is over, and wait for the answers."""
        async with AsyncExitStack() as stack:
            clients = [await self._client(stack, Retry()) for _ in range(UNARY + STREAMS)]
            bare = await self._client(stack, Retry(attempts=1))
            async with asyncio.TaskGroup() as group:
                for number, client in enumerate(clients[:UNARY]):
                    group.create_task(self._begin_calls("call", client.score, number, is_over))
                for number, client in enumerate(clients[UNARY:]):
                    stream = await stack.enter_async_context(client.score_stream())
                    group.create_task(self._begin_calls("stream", stream.score, number, is_over))

                async def repeat(request: ScoreRequest, *, timeout: float) -> ScoreResponse:
                    return await self._repeat(bare, request, timeout)

                group.create_task(self._begin_calls("own retry", repeat, UNARY, is_over))

    async def _client(self, stack: AsyncExitStack, retry: Retry) -> AsyncClient:
        alone = (("grpc.use_local_subchannel_pool", 1),)  # as in a process of its own
        client = AsyncClient(self.target, timeout=self.seconds, options=alone, retry=retry)
        return await stack.enter_async_context(client)

    async def _begin_calls(
        self,
        kind: str,
        score: Callable[..., Awaitable[ScoreResponse]],
        number: int,
        is_over: asyncio.Event,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            while not is_over.is_set():
                number += 7
                group.create_task(self._call(kind, score, number % len(self._requests)))
                due = time.monotonic() + self.pause
                await asyncio.sleep(self.pause)
                self.longest_stall = max(self.longest_stall, time.monotonic() - due)

    async def _call(
        self, kind: str, score: Callable[..., Awaitable[ScoreResponse]], number: int
    ) -> None:
        error, entries, begun = "", {}, time.monotonic()
        try:
            answer = await score(self._requests[number], timeout=self.seconds)
        except KvatlasError as failure:
            error = str(failure)
        ended = time.monotonic()
        if not error:
            entries = {
                pod.pod: Entry(
                    pod.matched_blocks,
                    pod.trust_state,
                    pod.trust_reason,
                    pod.as_of_sequence if pod.HasField("as_of_sequence") else None,
                )
                for pod in answer.pods
            }
        self.calls.append(Call(kind, number, begun, ended, error, entries))

    async def _repeat(
        self, client: AsyncClient, request: ScoreRequest, timeout: float
    ) -> ScoreResponse:
        """Repeat a call that was not available, as a gateway without our client does."""
        ends_at = time.monotonic() + timeout
        for _ in range(_ATTEMPTS - 1):
            try:
                return await client.score(request, timeout=ends_at - time.monotonic())
            except UnavailableError:
                self.repeated.append(time.monotonic())
                await asyncio.sleep(_PAUSE_SECONDS)
        return await client.score(request, timeout=ends_at - time.monotonic())
