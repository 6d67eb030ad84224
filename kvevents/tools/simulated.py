"""A simulated pod: a real ZMQ publisher with a small prefix cache and vLLM's wire format.

It has no model. It decides which blocks an engine would have cached, and publishes the same events;
when its cache is full, it evicts the least recently used blocks.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Self

import msgpack
import zmq

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_SECONDS = 0.01


class SimulatedPod:
    """Publishes the KV events that serving prompts would cause, within an `async with` block.

    Args:
        context: where its socket is made.
        name: the pod's name in its topic.
        model: the model's name in its topic.
        endpoint: bound if it contains a `*`, else connected to, as vLLM does.
        blocks: how many blocks fit into its cache.
        block_size: tokens of a block.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        model: str,
        endpoint: str,
        blocks: int = 256,
        block_size: int = 16,
    ) -> None:
        self.name = name
        self._context = context
        self._endpoint = endpoint
        self._topic = f"kv@{name}@{model}".encode()
        self._blocks = blocks
        self._block_size = block_size
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._sequence = 0

    async def __aenter__(self) -> Self:
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 1000)
        if "*" in self._endpoint:
            self._socket.bind(self._endpoint)
        else:
            self._socket.connect(self._endpoint)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._socket.close()

    @property
    def endpoint(self) -> str:
        """The address in use."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def wait_for_subscriber(self, timeout: float) -> bool:
        """Wait until a subscriber comes, `timeout` seconds at most; False if none came."""
        deadline = time.monotonic() + timeout
        while not self._socket.poll(0):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        self._socket.recv()
        return True

    def serve(self, tokens: Sequence[int]) -> int:
        """Serve a prompt and publish what that evicts and caches; returns the cached tokens."""
        size = self._block_size
        chunks = [tuple(tokens[i : i + size]) for i in range(0, len(tokens) - size + 1, size)]
        hashes: list[int] = []
        for chunk in chunks:
            hashes.append(_hash(hashes[-1] if hashes else 0, chunk))
        hit = 0
        while hit < len(hashes) and hashes[hit] in self._cached:
            self._cached.move_to_end(hashes[hit])
            hit += 1
        for known in reversed(hashes[:hit]):  # the end of a prefix is evicted before its beginning
            self._cached.move_to_end(known)
        new, events = hashes[hit:], []
        while self._cached and len(self._cached) + len(new) > self._blocks:
            evicted, _ = self._cached.popitem(last=False)
            events.append(_removed(evicted))
        if new:
            stored = [token for chunk in chunks[hit:] for token in chunk]
            events.append(_stored(new, hashes[hit - 1] if hit else None, stored, size))
            self._cached.update(dict.fromkeys(reversed(new)))
            self.publish(events)
        return hit * size

    def publish(self, events: list[dict[str, Any]]) -> None:
        """Send one batch of events, given as the wire's maps."""
        payload = msgpack.packb([time.time(), events, 0])
        self._socket.send_multipart([self._topic, self._sequence.to_bytes(8, "big"), payload])
        self._sequence += 1


def _hash(parent: int, chunk: tuple[int, ...]) -> int:
    digest = hashlib.sha256(repr((parent, chunk)).encode()).digest()
    return int.from_bytes(digest[-8:], "big")


def _stored(hashes: list[int], parent: int | None, tokens: list[int], size: int) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * len(hashes),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }


def _removed(evicted: int) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": [evicted], "medium": "GPU", "group_idx": 0}
