"""A stream whose caller never pauses lets others be answered in between."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kvatlas.v1.scoring_pb2 import ScoreStreamRequest
from prometheus_client import CollectorRegistry
from support.services.one_pod import TOKENS, score_request

from service.config import LimitsSection
from service.metrics import CallMetrics
from service.rpc.bounds import CallBounds
from service.rpc.scoring.scorer import ScoredPrompt
from service.rpc.scoring.stream import ScoreStream

REQUESTS = 500
SECONDS = 0.0001  # that each one takes


class BusyScorer:
    """Answers at once, after some work."""

    limits = LimitsSection()

    def is_immediate(self, *_: object) -> bool:
        return True

    async def score(self, *_: object) -> ScoredPrompt:
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            pass
        return ScoredPrompt(b"", 0)


class FullExchange:
    """Always has another request, and room for another answer."""

    tenant = None
    method = "Score"

    def __init__(self) -> None:
        self.left, self.answers = REQUESTS, 0

    async def read(self) -> bytes | None:
        self.left -= 1
        request = ScoreStreamRequest(id=self.left + 1, score=score_request(TOKENS))
        return request.SerializeToString() if self.left >= 0 else None

    async def write(self, _: bytes) -> None:
        self.answers += 1


async def test_a_stream_that_never_pauses_takes_turns_with_others() -> None:
    exchange, scorer, recorder, context = FullExchange(), BusyScorer(), None, NoDeadline()
    bounds = CallBounds(LimitsSection(), CallMetrics(CollectorRegistry()))
    parts: Any = (scorer, recorder, bounds, exchange, context)
    stream = asyncio.create_task(ScoreStream(*parts).run())
    turns = 0
    while not stream.done():
        await asyncio.sleep(0)
        turns += 1
    await stream
    assert exchange.answers == REQUESTS
    # Three requests of 0.1 ms fill a turn, and on a busy machine fewer.
    assert turns >= REQUESTS // 4


class NoDeadline:
    def time_remaining(self) -> None:
        return None
