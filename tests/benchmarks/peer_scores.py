"""Prompts of 8,192 tokens scored, beside the Rust peer's queries over HTTP; see `peer`.

Server CPU of one prompt: the peer's query, our call, and a message of our stream.
"""

from __future__ import annotations

import http.client
import json
import random
import struct
from collections.abc import Callable

from benchmarks import peer
from benchmarks.peer import Payloads, our_process, peer_process, publish, publishers, until_idle
from benchmarks.rows import cpu_seconds, row
from benchmarks.service import MODEL, wait_for
from benchmarks.streams import stream_us, unary_us
from kvatlas.v1 import scoring_pb2

PROMPTS, TOKENS, BLOCKS = 16, 8192, 512
_ROUNDS, _REPEATS = 5, 20
# Workers, how many of them hold the prompts, targets for a call, a stream's message, 16 in flight.
_CASES = ((8, 8, 0.95, 0.75, 0.6), (64, 64, 0.75, 0.6, 0.5), (64, 1, 1.15, 0.9, 0.75))


def _prompt(number: int) -> list[int]:
    source = random.Random(number)
    return [source.randrange(128_000) for _ in range(TOKENS)]


def _payloads(workers: int, holders: int) -> Payloads:
    """The first workers hold all prompts, in events of 64 blocks; the others one block."""
    made: Payloads = []
    for worker in range(workers):
        payloads = []
        for number in range(PROMPTS if worker < holders else 1):
            tokens = _prompt(number) if worker < holders else [worker] * 16
            hashes = [(number << 32) + block + 1 for block in range(len(tokens) // 16)]
            for start in range(0, len(hashes), 64):
                parent = hashes[start - 1] if start else None
                end = start + 64
                some = peer.stored(tokens[16 * start : 16 * end], hashes[start:end], parent)
                payloads.append(peer.payload([some]))
        made.append(payloads)
    return made


def _peer_us(python: str, payloads: Payloads, holders: int) -> float:
    with publishers(len(payloads)) as sockets, peer_process(python, sockets) as (pid, port):
        publish(sockets, payloads, lambda _: None)
        until_idle(pid)
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        bodies = [
            json.dumps({"model_name": MODEL, "token_ids": _prompt(n)}, separators=(",", ":"))
            for n in range(PROMPTS)
        ]

        def query(body: str) -> dict[str, dict[str, int]]:
            connection.request("POST", "/query", body, {"Content-Type": "application/json"})
            scores: dict[str, dict[str, int]] = json.load(connection.getresponse())["scores"]
            return scores

        assert sum(score["0"] == TOKENS for score in query(bodies[0]).values()) == holders
        return _median_us(lambda: cpu_seconds(pid), query, bodies)


def _median_us(cpu: Callable[[], float], ask: Callable[[str], object], bodies: list[str]) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        before = cpu()
        for _ in range(_REPEATS):
            for body in bodies:
                ask(body)
        rounds.append((cpu() - before) / (_REPEATS * len(bodies)) * 1e6)
    return sorted(rounds)[_ROUNDS // 2]


def _ours_us(payloads: Payloads, holders: int) -> list[float]:
    requests = []
    for number in range(PROMPTS):
        request = scoring_pb2.ScoreRequest(model=MODEL)
        request.prompt.packed_token_ids = struct.pack(f"<{TOKENS}I", *_prompt(number))
        requests.append(request)
    with publishers(len(payloads)) as sockets, our_process(sockets) as service:
        publish(sockets, payloads, lambda _: None)
        wait_for(service, {worker: len(p) - 1 for worker, p in enumerate(payloads)})
        call = service.channel.unary_unary(
            "/kvatlas.v1.ScoringService/Score",
            request_serializer=scoring_pb2.ScoreRequest.SerializeToString,
            response_deserializer=scoring_pb2.ScoreResponse.FromString,
        )
        assert sum(pod.matched_blocks == BLOCKS for pod in call(requests[0]).pods) == holders
        return [
            unary_us(service, requests),
            stream_us(service, requests, 1),
            stream_us(service, requests, 16),
        ]


def peer_score_rows(python: str) -> None:
    """The peer's queries and our answers, one service after the other."""
    for workers, holders, *targets in _CASES:
        payloads = _payloads(workers, holders)
        theirs = _peer_us(python, payloads, holders) if python else None
        ways = ("a call", "a stream, one after the other", "a stream, 16 in flight")
        for used, target, way in zip(_ours_us(payloads, holders), targets, ways, strict=True):
            row(
                f"peer: Score, {workers} workers, {holders} hold it: {way}",
                f"{used:.0f} us",
                f"Rust peer's query: {theirs:.0f} us" if theirs else "no peer here",
                used / theirs if theirs else None,
                f"<= {target} x the peer",
            )
