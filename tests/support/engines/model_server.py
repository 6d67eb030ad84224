"""A model server as kvatlas sees it: an HTTP API that tells what it is, sockets of KV events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import zmq

from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.ports import close_listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "sim/model"
END = b"\xff" * 8


def block_stored(tokens: list[int], first_hash: int = 1) -> dict[str, Any]:
    """The event that stores blocks of 16 tokens, with consecutive engine hashes."""
    count = len(tokens) // 16
    return {
        "type": "BlockStored",
        "block_hashes": list(range(first_hash, first_hash + count)),
        "parent_block_hash": None,
        "token_ids": tokens,
        "block_size": 16,
        "medium": "GPU",
    }


class RankSockets:
    """The event and replay sockets of one rank, and all that it has published."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], rank: int) -> None:
        self.rank = rank
        self.frames: list[list[bytes]] = []
        self.publisher = Publisher(context)
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind("tcp://127.0.0.1:*")
        self._task = asyncio.create_task(self._answer())

    @property
    def port(self) -> int:
        return int(self.publisher.endpoint.rpartition(":")[2])

    @property
    def replay_port(self) -> int:
        return int(self._router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def publish(self, *events: dict[str, Any]) -> int:
        """Publish one frame; returns its sequence number."""
        sequence = len(self.frames)
        payload = msgpack.packb([1.0, list(events), self.rank])
        self.frames.append([b"", sequence.to_bytes(8, "big"), payload])
        self.publisher.send(self.frames[-1])
        return sequence

    async def _answer(self) -> None:
        while True:
            if not self._router.poll(0):
                await asyncio.sleep(0.002)
                continue
            identity, empty, start = self._router.recv_multipart()
            for _, sequence, payload in self.frames[int.from_bytes(start, "big") :]:
                self._router.send_multipart([identity, empty, sequence, payload])
            self._router.send_multipart([identity, empty, END, b""])

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.publisher.close()
        self._router.close()


@dataclass
class ModelServer:
    """Answers over HTTP/1.1 on a port of its own.

    Attributes:
        answers: path -> status and body; a body that is no text or bytes is sent as JSON.
        asked: how often each path was asked for.
        headers: of the last request.
        held: paths whose requests are held for ever.
    """

    context: zmq.Context[zmq.Socket[bytes]]
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    ranks: list[RankSockets] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pod(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.pod}"

    async def serve(self) -> None:
        """Answer from now on, at the same port as before."""
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            await close_listening(self._server)
            for writer in self._writers:
                writer.close()
            await self._server.wait_closed()
            self._server = None

    async def new_engine(self, ranks: int = 1) -> None:
        """Another engine, with sockets of its own, takes the place of the one before."""
        await self.end_engine()
        self.ranks = [RankSockets(self.context, rank) for rank in range(ranks)]

    async def end_engine(self) -> None:
        """Close the sockets of events."""
        for rank in self.ranks:
            await rank.close()
        self.ranks = []

    def say_vllm(self, **cache: str) -> None:
        """Answer as vLLM 0.32 does."""
        labels = {"block_size": "16", "enable_prefix_caching": "True", **cache}
        shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
        sources = {
            str(rank.rank): {
                "enable_kv_cache_events": True,
                "publisher": "zmq",
                "endpoint": f"tcp://*:{rank.port}",
                "replay_endpoint": f"tcp://*:{rank.replay_port}",
                "topic": "",
            }
            for rank in self.ranks
        }
        self.answers = {
            "/v1/models": (200, models_of("vllm")),
            "/kv_event_sources": (200, sources),
            "/version": (200, {"version": "0.32.0"}),
            "/metrics": (200, f"# TYPE x gauge\nx 1\nvllm:cache_config_info{{{shown}}} 1.0\n"),
        }

    def say_sglang(self, **info: Any) -> None:
        """Answer as SGLang 0.5 does; of one rank, as those of several need neighbouring ports."""
        (rank,) = self.ranks
        events = {
            "publisher": "zmq",
            "endpoint_host": "0.0.0.0",
            "endpoint_port_base": rank.port,
            "replay_endpoint_port_base": rank.replay_port,
            "topic": "",
            "block_size": 16,
            "dp_size": 1,
        }
        described = {"version": "0.5.23", "page_size": 16, "kv_events": events, **info}
        self.answers = {
            "/v1/models": (200, models_of("sglang")),
            "/server_info": (200, described),
        }

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.splitlines()
            path = line.split()[1]
            self.asked[path] += 1
            self._was_asked.set()
            self.headers = dict(field.lower().split(": ", 1) for field in rest if ": " in field)
            if path in self.held:
                await reader.read()
                return
            status, body = self.answers.get(path, (404, {"detail": "Not Found"}))
            sent = body if isinstance(body, str | bytes) else json.dumps(body)
            data = sent.encode() if isinstance(sent, str) else sent
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def until_asked(self, path: str, times: int) -> None:
        """Wait until `path` was asked for so often."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.asked[path] < times:
                self._was_asked.clear()
                await self._was_asked.wait()

    async def close(self) -> None:
        await self.refuse()
        await self.end_engine()


def models_of(engine: str, *names: str, adapters: tuple[str, ...] = ()) -> dict[str, Any]:
    """What /v1/models answers."""
    cards = [{"id": name, "owned_by": engine, "root": "/m"} for name in names or (MODEL,)]
    cards += [{"id": name, "owned_by": engine, "parent": cards[0]["id"]} for name in adapters]
    return {"object": "list", "data": cards}


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """A server that says that it is vLLM with one rank."""
    with zmq.Context() as context:
        server = ModelServer(context)
        await server.new_engine()
        server.say_vllm()
        await server.serve()
        try:
            yield server
        finally:
            await server.close()
