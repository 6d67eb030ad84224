"""A simulated engine: a prefix cache in a dictionary, which publishes vLLM's KV events.

The dictionary is keyed by the contents of blocks, never by a block key: it is the truth that
scores are held against.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from indexer import CacheLayout, Group
from support.naive.reuse import reusable_blocks


@dataclass(frozen=True)
class Prompt:
    """Tokens and all else by which prompts differ; images as (hash, offset, length)."""

    tokens: tuple[int, ...]
    lora_name: str | None = None
    cache_salt: str | None = None
    images: tuple[tuple[str, int, int], ...] = ()


Content = tuple[Any, ...]


def block_contents(prompt: Prompt, block_size: int) -> list[Content]:
    """The content of each full block of a prompt, which includes that of the blocks before it."""
    chain: list[Content] = []
    before: Any = ("root", prompt.lora_name, prompt.cache_salt)
    for start in range(0, len(prompt.tokens) - block_size + 1, block_size):
        images = tuple(
            image
            for image, offset, length in sorted(prompt.images, key=lambda item: item[1])
            if offset < start + block_size and offset + length > start
        )
        before = (hash(before), prompt.tokens[start : start + block_size], images)
        chain.append(before)
    return chain


def leading_blocks(chain: list[Content], held: Collection[Content]) -> int:
    """How many leading blocks of `chain` are in `held`."""
    return next((i for i, content in enumerate(chain) if content not in held), len(chain))


class HeldContents(NamedTuple):
    """The contents that an engine held at some moment, by tier and group."""

    gpu: frozenset[Content]
    cpu: frozenset[Content]
    window: frozenset[Content]


@dataclass
class SimulatedEngine:
    """The cache of one pod, and the frames that it has published.

    Attributes:
        name: the pod.
        model: the model that it serves.
        block_size: tokens of a block.
        capacity: blocks on the GPU.
        random: decides what is evicted and how prompts are computed in steps.
        bytes_hashes: engine hashes are 32 bytes instead of 64-bit integers.
        arrays: events are arrays instead of maps.
        frames: all messages since the engine started, as (topic, sequence number, payload).
        copies: content -> physical copies on the GPU.
        hashes: content -> engine hash.
        cpu_capacity: blocks of a CPU tier, whose events carry engine hashes alone; 0 without one.
        rank: the rank that the batches name.
        counted_hashes: engine hashes are 1, 2, 3, ..., so that after a restart the same hash means
            another block.
        cpu: contents in the CPU tier, the oldest first.
        window: tokens of the sliding window of a second cache group, which keeps only the last
            blocks of each computation; 0 for a model with one group.
        window_first: the group of the sliding window has the number 0.
        window_copies: content -> physical copies in the group of the sliding window.
        history: what was held after each frame.
        now: the clock that batches are stamped with, in seconds since the epoch.
    """

    name: str
    model: str
    block_size: int
    capacity: int
    random: random.Random
    bytes_hashes: bool = False
    arrays: bool = False
    frames: list[list[bytes]] = field(default_factory=list)
    copies: dict[Content, int] = field(default_factory=dict)
    hashes: dict[Content, int] = field(default_factory=dict)
    cpu_capacity: int = 0
    rank: int = 0
    counted_hashes: bool = False
    cpu: dict[Content, None] = field(default_factory=dict)
    window: int = 0
    window_first: bool = False
    window_copies: dict[Content, int] = field(default_factory=dict)
    history: list[HeldContents] = field(default_factory=list)
    now: Callable[[], float] = lambda: 1.0

    def serve(self, prompt: Prompt) -> None:
        """Compute and cache a prompt, sometimes in two steps, sometimes with a second copy."""
        chain = block_contents(prompt, self.block_size)
        held = 0
        while held < len(chain) and self.copies.get(chain[held]):
            held += 1
        if held and held == len(chain):
            held -= 1  # an engine recomputes the last block: a second copy
        steps = sorted({held, self.random.randint(held, len(chain)), len(chain)})
        for start, end in itertools.pairwise(steps):
            events = self._evict(end - start, set(chain))
            stores = [self._stored(prompt, chain, start, end)]
            if self.window:
                events += self._evict_window()
                stores.append(self._stored_in_window(prompt, chain, start, end))
            events += reversed(stores) if self.window_first else stores
            self._publish(events)
        self._offload(chain[held:])

    def reset(self) -> None:
        """Clear the cache on the GPU."""
        self.copies.clear()
        self.window_copies.clear()
        self._publish([{"type": "AllBlocksCleared"}])

    def restart(self) -> None:
        """Start anew: an empty cache, other engine hashes, sequence numbers from 0."""
        self.copies, self.cpu, self.hashes, self.window_copies = {}, {}, {}, {}
        self.frames, self.history = [], []

    def resident(self, prompt: Prompt) -> int:
        """How many leading blocks of the prompt are cached on the GPU."""
        return leading_blocks(
            block_contents(prompt, self.block_size), {c for c, n in self.copies.items() if n}
        )

    def _offload(self, chain: list[Content]) -> None:
        new = [content for content in chain if content not in self.cpu]
        if not self.cpu_capacity or not new:
            return
        removed = []
        while self.cpu and len(self.cpu) + len(new) > self.cpu_capacity:
            victim = next(iter(self.cpu))
            del self.cpu[victim]
            removed.append(self._wire_hash(victim))
        self.cpu.update(dict.fromkeys(new))
        self.random.shuffle(new)
        events: list[dict[str, Any]] = [
            {
                "type": "BlockStored",
                "block_hashes": [self._wire_hash(content)],
                "parent_block_hash": None,
                "token_ids": [],
                "block_size": 0,
                "lora_id": None,
                "medium": "CPU",
                "lora_name": None,
                "group_idx": self.main_group,
            }
            for content in new
        ]
        if removed:
            gone = {"type": "BlockRemoved", "block_hashes": removed, "medium": "CPU"}
            events.insert(0, {**gone, "group_idx": self.main_group})
        self._publish(events)

    def _evict(self, needed: int, spared: set[Content]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while sum(self.copies.values()) + needed > self.capacity:
            victims = [c for c, n in self.copies.items() if n and c not in spared]
            if not victims:
                break
            victim = self.random.choice(victims)
            self.copies[victim] -= 1
            events.append(
                {
                    "type": "BlockRemoved",
                    "block_hashes": [self._wire_hash(victim)],
                    "medium": "GPU",
                    "group_idx": self.main_group,
                }
            )
        return events

    @property
    def main_group(self) -> int:
        """The number of the group of full attention."""
        return int(self.window_first and self.window > 0)

    @property
    def _reach(self) -> int:
        return -(-(self.window - 1) // self.block_size)

    def _evict_window(self) -> list[dict[str, Any]]:
        """Sometimes evict a block of the window's group that the main group keeps."""
        held = [content for content, copies in self.window_copies.items() if copies]
        if not held or self.random.random() < 0.5:
            return []
        victim = self.random.choice(held)
        self.window_copies[victim] -= 1
        return [
            {
                "type": "BlockRemoved",
                "block_hashes": [self._wire_hash(victim)],
                "medium": "GPU",
                "group_idx": 1 - self.main_group,
            }
        ]

    def _stored_in_window(
        self, prompt: Prompt, chain: list[Content], start: int, end: int
    ) -> dict[str, Any]:
        kept = range(max(start, end - self._reach), end)
        for index in kept:
            self.window_copies[chain[index]] = self.window_copies.get(chain[index], 0) + 1
        event = self._event(prompt, chain, start, end, kept)
        event |= {"group_idx": 1 - self.main_group, "kv_cache_spec_kind": "sliding_window"}
        return {**event, "kv_cache_spec_sliding_window": self.window}

    def _stored(self, prompt: Prompt, chain: list[Content], start: int, end: int) -> dict[str, Any]:
        for content in chain[start:end]:
            self.copies[content] = self.copies.get(content, 0) + 1
        return self._event(prompt, chain, start, end, range(start, end))

    def _event(
        self, prompt: Prompt, chain: list[Content], start: int, end: int, kept: Collection[int]
    ) -> dict[str, Any]:
        """The event that computes the blocks from `start` to `end` and stores those in `kept`."""
        size = self.block_size
        return {
            "type": "BlockStored",
            "block_hashes": [self._wire_hash(chain[index]) for index in kept],
            "parent_block_hash": self._wire_hash(chain[start - 1]) if start else None,
            "token_ids": list(prompt.tokens[start * size : end * size]),
            "block_size": size,
            "lora_id": None if prompt.lora_name is None else 7,
            "medium": "GPU",
            "lora_name": prompt.lora_name,
            "extra_keys": [self._extra_keys(prompt, index) for index in kept],
            "group_idx": self.main_group,
            "kv_cache_spec_kind": "full_attention",
        }

    def _extra_keys(self, prompt: Prompt, index: int) -> list[Any] | None:
        first = index * self.block_size
        keys: list[Any] = [] if prompt.lora_name is None else [prompt.lora_name]
        for image, offset, length in sorted(prompt.images, key=lambda item: item[1]):
            if offset < first + self.block_size and offset + length > first:
                keys.append([image, offset - first])
        if prompt.cache_salt is not None and index == 0:
            keys.append(prompt.cache_salt)
        return keys or None

    def _wire_hash(self, content: Content) -> int | bytes:
        new = len(self.hashes) + 1 if self.counted_hashes else self.random.getrandbits(64)
        value = self.hashes.setdefault(content, new)
        return value.to_bytes(8, "big").rjust(32, b"\x5a") if self.bytes_hashes else value

    def _publish(self, events: list[dict[str, Any]]) -> None:
        wire: list[Any] = [list(event.values()) if self.arrays else event for event in events]
        self.frames.append(
            [
                f"kv@{self.name}@{self.model}".encode(),
                len(self.frames).to_bytes(8, "big"),
                msgpack.packb([self.now(), wire, self.rank]),
            ]
        )
        held, windows = (
            frozenset(content for content, copies in counts.items() if copies)
            for counts in (self.copies, self.window_copies)
        )
        self.history.append(HeldContents(held, frozenset(self.cpu), windows))

    def reusable_tokens(self, prompt: Prompt, held: HeldContents) -> int:
        """Tokens of a prompt that the engine reuses while it holds `held`."""
        chain = block_contents(prompt, self.block_size)
        groups = {self.main_group: Group("full_attention", 0, self.block_size)}
        if self.window:
            groups[1 - self.main_group] = Group("sliding_window", self.window, self.block_size)

        def holds(number: int, index: int) -> bool:
            content = chain[index]
            if number == self.main_group:
                return content in held.gpu or content in held.cpu
            return content in held.window

        end = (len(prompt.tokens) - 1) // self.block_size
        layout = CacheLayout(self.block_size, groups)
        return self.block_size * reusable_blocks(layout, holds, end, self.block_size)
