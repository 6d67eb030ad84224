"""Prompts asked about over a stream, many in a call, or for the few of many pods that hold them.

Server CPU of one prompt, each beside that of a `Score` call for the same prompts in the same run.
"""

from __future__ import annotations

import queue
import struct
import threading
from array import array
from collections.abc import Iterator
from typing import Any

from benchmarks.kernel import prompts
from benchmarks.rows import percentile, row
from benchmarks.service import (
    MODEL,
    Process,
    filled,
    frame,
    kvatlas,
    latencies_us,
    publisher,
    stored,
    wait_for,
)
from kvatlas.v1 import scoring_pb2

_SCORE = "/kvatlas.v1.ScoringService/Score"
_MANY = "/kvatlas.v1.ScoringService/ScoreMany"
_STREAM = "/kvatlas.v1.ScoringService/ScoreStream"
_ROUNDS = 7
_REPEATS = 12  # of all prompts in a round


def _request(tokens: array[int], **fields: Any) -> scoring_pb2.ScoreRequest:
    request = scoring_pb2.ScoreRequest(model=MODEL, **fields)
    request.prompt.packed_token_ids = struct.pack(f"<{len(tokens)}I", *tokens)
    return request


class _Stream:
    """A stream that keeps so many requests under way."""

    def __init__(self, service: Process, in_flight: int) -> None:
        self._sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = service.channel.stream_stream(_STREAM)
        self._answers = call(self._requests())
        self._in_flight = in_flight

    def _requests(self) -> Iterator[bytes]:
        while (raw := self._sent.get()) is not None:
            yield raw

    def ask(self, messages: list[bytes]) -> None:
        """Send all messages, and wait for all answers."""
        for number, raw in enumerate(messages):
            self._sent.put(raw)
            if number >= self._in_flight - 1:
                next(self._answers)
        for _ in range(min(self._in_flight - 1, len(messages))):
            next(self._answers)

    def close(self) -> None:
        self._sent.put(None)
        assert next(self._answers, None) is None


def _median_us(service: Process, prompts_a_round: int, ask: Any) -> float:
    """Server CPU microseconds of one prompt: median of several rounds of `ask`."""
    rounds = []
    for _ in range(_ROUNDS):
        before = service.cpu
        ask()
        rounds.append((service.cpu - before) / prompts_a_round * 1e6)
    return sorted(rounds)[_ROUNDS // 2]


def unary_us(service: Process, requests: list[scoring_pb2.ScoreRequest]) -> float:
    """Server CPU microseconds of one call."""
    call: Any = service.channel.unary_unary(_SCORE)
    raw = [request.SerializeToString() for request in requests] * _REPEATS

    def ask() -> None:
        for each in raw:
            call(each)

    return _median_us(service, len(raw), ask)


def stream_us(service: Process, requests: list[scoring_pb2.ScoreRequest], in_flight: int) -> float:
    """Server CPU microseconds of one message of a stream."""
    raw = [
        scoring_pb2.ScoreStreamRequest(id=number, score=request).SerializeToString()
        for number, request in enumerate(requests * _REPEATS)
    ]
    stream = _Stream(service, in_flight)
    try:
        return _median_us(service, len(raw), lambda: stream.ask(raw))
    finally:
        stream.close()


def stream_rows() -> None:
    """A stream's message against a call."""
    requests = [_request(tokens) for tokens in prompts(8192)]
    for pods in (8, 64):
        with kvatlas() as service, filled(service, pods):
            unary = unary_us(service, requests)
            for in_flight, how in ((1, "one after the other"), (16, "16 in flight")):
                used = stream_us(service, requests, in_flight)
                row(
                    f"ScoreStream, server CPU, 8,192 ids, {pods} pods, {how}",
                    f"{used:.0f} us",
                    f"Score: {unary:.0f} us",
                    used / unary,
                    "see `peer`",
                )


def many_row() -> None:
    """64 prompts that share half of their tokens, in one call and one by one."""
    first, *others = prompts(8192)
    shared = first[:4096]
    requests = [_request(shared + other[at:][:4096]) for at in range(5) for other in others][:64]
    many = scoring_pb2.ScoreManyRequest(requests=requests).SerializeToString()
    with kvatlas() as service, filled(service, 8):
        unary = unary_us(service, requests)
        call: Any = service.channel.unary_unary(_MANY)
        used = _median_us(service, 64 * 8, lambda: [call(many) for _ in range(8)])
    row(
        "ScoreMany of 64 prompts that share half, a prompt",
        f"{used:.0f} us",
        f"Score: {unary:.0f} us",
        used / unary,
        "<= 0.5 x Score",
    )


def beside_many_row() -> None:
    """How long a Score takes while somebody asks for 64 prompts at a time, again and again."""
    requests = [_request(tokens) for tokens in prompts(8192)]
    raw = [request.SerializeToString() for request in requests]
    many = scoring_pb2.ScoreManyRequest(requests=(requests * 64)[:64]).SerializeToString()
    over = threading.Event()
    with kvatlas() as service, filled(service, 8):
        score: Any = service.channel.unary_unary(_SCORE)
        score_many: Any = service.channel.unary_unary(_MANY)

        def ask_many() -> None:
            while not over.is_set():
                score_many(many)

        latencies_us(score, raw, 1)
        idle = percentile(latencies_us(score, raw, 4), 0.99)
        asking = threading.Thread(target=ask_many)
        asking.start()
        busy = percentile(latencies_us(score, raw, 4), 0.99)
        over.set()
        asking.join()
    row(
        "Score p99 beside ScoreMany of 64 prompts",
        f"{busy:.0f} us",
        f"idle: {idle:.0f} us",
        busy / (idle + 5000),
        "<= idle + 5 ms",
    )


def holders_row() -> None:
    """A model of 512 pods of which 8 hold something, against one of 8 pods."""
    requests = [_request(tokens, only_holders=True) for tokens in prompts(8192)]
    with kvatlas() as service, filled(service, 8), publisher(service) as socket:
        few = unary_us(service, requests)
        for pod in range(8, 512):
            socket.send_multipart(frame(pod, 0, stored([pod] * 16, [pod])))
        wait_for(service, dict.fromkeys(range(8, 512), 0))
        used = unary_us(service, requests)
    row(
        "Score, only_holders, 512 pods of which 8 hold the prompt",
        f"{used:.0f} us",
        f"8 pods: {few:.0f} us",
        used / few,
        "<= 1.1 x",
    )
