"""Chats through real vLLM servers: what Score promises before each request, against what is reused.

Usage: play.py FOLDER [requests of each kind of model]; FOLDER as setup.sh has made it. Two servers
of each kind; in the middle one of them is killed and started again. Exits with 1 if a pod that was
called exact reused another number of tokens than `reusable_tokens` (a bound: more than that).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import zmq
from kvatlas.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    routing_pb2,
    routing_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
)
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT, TrustState
from support.services.running import local_configuration, running_service

MODEL = "sim/qwen"
BLOCK_SIZE = 32  # attention on a CPU wants a multiple of it
START_SECONDS = 300
BLOCKS = {"plain": 300, "hybrid": 400}  # few, so that some are evicted
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@dataclass
class Server:
    """A vLLM server with its event and replay sockets."""

    folder: Path
    kind: str
    port: int
    log: IO[bytes]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pod(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def events(self) -> str:
        return f"tcp://127.0.0.1:{self.port + 100}"

    @property
    def replay(self) -> str:
        return f"tcp://127.0.0.1:{self.port + 200}"

    def start(self) -> None:
        events = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{self.port + 100}",
            "replay_endpoint": f"tcp://*:{self.port + 200}",
            "topic": "",
        }
        environment = {
            **os.environ,
            **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS"), "1"),
            **dict.fromkeys(("DO_NOT_TRACK", "VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS"), "1"),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        command = [
            *("venv/bin/vllm", "serve", f"./{self.kind}", "--served-model-name", MODEL),
            *("--load-format", "dummy", "--dtype", "bfloat16", "--max-model-len", "8192"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager"),
            *("--block-size", str(BLOCK_SIZE), "--max-num-seqs", "4"),
            *("--enable-prompt-tokens-details", "--enable-prefix-caching"),
            *("--kv-events-config", json.dumps(events)),
            *("--num-gpu-blocks-override", str(BLOCKS[self.kind])),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    async def ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._get, "/health")
            except OSError:
                assert self.process is not None
                assert self.process.poll() is None, f"vLLM ended: see {self.log.name}"
                assert time.monotonic() < deadline, f"vLLM does not start: see {self.log.name}"
                await asyncio.sleep(0.5)
            else:
                return

    def _get(self, path: str) -> None:
        urllib.request.urlopen(f"http://{self.pod}{path}", timeout=5).read()

    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{self.pod}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def newest(self, context: zmq.Context[zmq.Socket[bytes]], after: int) -> int:
        """Number of the newest frame that the engine has published, at least `after`."""
        with context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RCVTIMEO, 10_000)
            dealer.connect(self.replay)
            dealer.send_multipart([b"", (after + 1).to_bytes(8, "big")])
            while (parts := dealer.recv_multipart())[-2] != b"\xff" * 8:
                after = max(after, int.from_bytes(parts[-2], "big"))
        return after


@dataclass
class Outcome:
    """What came of the requests to the servers of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, score: scoring_pb2.PodScore, tokens: int, usage: dict[str, Any]) -> None:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        promised = score.reusable_tokens
        self.counts["requests"] += 1
        self.counts["prompt tokens"] += usage["prompt_tokens"]
        self.counts["cached tokens"] += cached
        self.counts["main blocks alone would be wrong"] += (
            min(score.matched_tokens, (tokens - 1) // BLOCK_SIZE * BLOCK_SIZE) != cached
        )
        right = promised >= cached if score.reusable_is_bound else promised == cached
        if score.trust_state != TRUST_STATE_EXACT:
            self.counts["not exact"] += 1
        elif not right or tokens != usage["prompt_tokens"]:
            self.wrong.append(f"{score}: {cached} cached, {tokens} tokens, {usage}")
        else:
            self.counts["right while exact"] += 1


class Chats:
    """Chats of several turns, some with tools, salts and template arguments."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)
        self._words = [
            "".join(self._source.choices("abcdefghijklmnoprstuvw", k=self._source.randrange(2, 11)))
            for _ in range(1500)
        ]
        self._systems = [self._text(150) for _ in range(3)]
        self._chats = [self._new() for _ in range(8)]

    def _text(self, words: int) -> str:
        return " ".join(self._source.choices(self._words, k=words))

    def _new(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._source.choice(self._systems)}]

    def next(self) -> tuple[int, dict[str, Any]]:
        number = self._source.randrange(len(self._chats))
        if len(self._chats[number]) > 14:
            self._chats[number] = self._new()
        messages = self._chats[number]
        messages.append({"role": "user", "content": self._text(self._source.randrange(20, 120))})
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": list(messages),
            "max_tokens": self._source.randrange(1, 24),
            "temperature": 0,
        }
        if number % 3 == 0:
            body |= {"tools": [TOOL], "tool_choice": "none"}
        if number % 4 == 1:
            body["cache_salt"] = f"tenant-{number}"
        if number % 5 == 2:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        return number, body

    def answered(self, number: int, content: str | None) -> None:
        self._chats[number].append({"role": "assistant", "content": content or ""})


async def play(folder: Path, kind: str, requests: int) -> Outcome:
    """Start servers of a kind, and the service, and send so many requests."""
    logs = [(folder / f"{kind}-{number}.log").open("ab") for number in (1, 2)]
    servers = [
        Server(folder, kind, port, log) for port, log in zip((18001, 18002), logs, strict=True)
    ]
    outcome, chats, source = Outcome(), Chats(11), random.Random(5)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for server in servers:
            server.start()
        settings = local_configuration(
            index={"block_size": BLOCK_SIZE},
            models=[{"name": MODEL, "tokenizer": str(folder / kind)}],
            discovery={"pods": [f"http://{s.pod}" for s in servers], "ready_seconds": 0.1},
        )
        async with running_service(settings) as service:
            for server in servers:
                await server.ready()
            await exact(service.admin, context, servers)
            for number in range(requests):
                if number == requests // 2:
                    await killed_and_back(service.admin, servers[0], context, outcome)
                server = source.choice(servers)
                at, body = chats.next()
                score, tokens, handle = await ask(service.channel, body, server.pod)
                await route(service.channel, handle, server.pod)
                answer = await asyncio.to_thread(server.post, body)
                outcome.note(score, tokens, answer["usage"])
                await report(service.channel, handle, answer["usage"])
                chats.answered(at, answer["choices"][0]["message"]["content"])
                await exact(service.admin, context, [server])
                after, _, _ = await ask(service.channel, body, server.pod)
                outcome.counts["speculative blocks left"] += after.speculative_blocks
            await note_delivered(service.admin, outcome)
    finally:
        for server in servers:
            server.kill()
        for log in logs:
            log.close()
        context.destroy(linger=0)
    return outcome


async def ask(
    channel: grpc.aio.Channel, body: dict[str, Any], pod: str
) -> tuple[scoring_pb2.PodScore, int, bytes]:
    prompt = scoring_pb2.Prompt(chat_completion=json.dumps(body))
    request = scoring_pb2.ScoreRequest(model=MODEL, prompt=prompt, pods=[pod], want_handle=True)
    answer = await scoring_pb2_grpc.ScoringServiceStub(channel).Score(request)
    return answer.pods[0], answer.total_tokens, answer.handle


async def route(channel: grpc.aio.Channel, handle: bytes, pod: str) -> None:
    """Say where a request is sent, and that its blocks may be speculative for a long time."""
    request = routing_pb2.RecordRoutingRequest(handle=handle, pod=pod, ttl_ms=60_000)
    await routing_pb2_grpc.RoutingServiceStub(channel).RecordRouting(request)


async def report(channel: grpc.aio.Channel, handle: bytes, usage: dict[str, Any]) -> None:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    request = routing_pb2.ReportOutcomeRequest(handle=handle, cached_tokens=cached)
    await routing_pb2_grpc.RoutingServiceStub(channel).ReportOutcome(request)


async def note_delivered(channel: grpc.aio.Channel, outcome: Outcome) -> None:
    for rank in (await ranks(channel)).values():
        outcome.counts["promised tokens"] += rank.delivered.promised_tokens
        outcome.counts["delivered tokens"] += rank.delivered.delivered_tokens
        outcome.counts["missing tokens"] += rank.delivered.missing_tokens


async def ranks(channel: grpc.aio.Channel) -> dict[str, fleet_pb2.Rank]:
    answer = await fleet_pb2_grpc.FleetServiceStub(channel).ListPods(fleet_pb2.ListPodsRequest())
    return {pod.pod: pod.ranks[0] for pod in answer.pods}


async def exact(
    channel: grpc.aio.Channel, context: zmq.Context[zmq.Socket[bytes]], servers: list[Server]
) -> None:
    """Wait until all that these servers have published is applied, and they are called exact."""
    for server in servers:
        newest = await asyncio.to_thread(server.newest, context, -1)
        async with asyncio.timeout(60):
            while True:
                rank = (await ranks(channel)).get(server.pod, fleet_pb2.Rank())
                applied = rank.last_sequence if rank.HasField("last_sequence") else -1
                if applied >= newest and rank.trust_state == TRUST_STATE_EXACT:
                    break
                await asyncio.sleep(0.01)


async def killed_and_back(
    channel: grpc.aio.Channel,
    server: Server,
    context: zmq.Context[zmq.Socket[bytes]],
    outcome: Outcome,
) -> None:
    """The engine is killed; how long it is called exact after that, and after it answers again."""
    server.kill()
    killed_at = time.monotonic()
    while (rank := (await ranks(channel))[server.pod]).trust_state == TRUST_STATE_EXACT:
        pass
    seconds = time.monotonic() - killed_at
    state = TrustState.Name(rank.trust_state)
    print(f"  killed: {state} ({rank.trust_reason}) after {seconds * 1e3:.1f} ms")
    server.start()
    await server.ready()
    ready_at = time.monotonic()
    await exact(channel, context, [server])
    print(f"  exact again {time.monotonic() - ready_at:.2f} s after it was healthy")
    outcome.counts["engines killed"] += 1


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    failed = False
    for kind in ("plain", "hybrid"):
        print(f"{kind}: {requests} requests to 2 vLLM servers", flush=True)
        outcome = asyncio.run(play(folder, kind, requests))
        for name, count in outcome.counts.items():
            print(f"  {name}: {count}")
        print(f"  wrong while exact: {len(outcome.wrong)}")
        for each in outcome.wrong[:10]:
            print(f"    {each}")
        failed |= bool(outcome.wrong) or not outcome.counts["cached tokens"]
        failed |= bool(outcome.counts["missing tokens"] + outcome.counts["speculative blocks left"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
