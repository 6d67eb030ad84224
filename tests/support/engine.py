"""A naive engine: a prefix cache as a dictionary, which says what it does in vLLM's words.

Its truth comes from its own dictionary of contents, never from a block key.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from indexer import CacheLayout, Group
from support.naive_reuse import reusable


@dataclass(frozen=True)
class Prompt:
    """Tokens and all else that tells prompts apart; images as (hash, offset, length)."""

    tokens: tuple[int, ...]
    lora_name: str | None = None
    cache_salt: str | None = None
    images: tuple[tuple[str, int, int], ...] = ()


Content = tuple[Any, ...]


def contents(prompt: Prompt, block_size: int) -> list[Content]:
    """What each full block of the prompt stands for, including all before it."""
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


def leading(chain: list[Content], held: Collection[Content]) -> int:
    """How many leading blocks of `chain` are held."""
    return next((i for i, content in enumerate(chain) if content not in held), len(chain))


class Held(NamedTuple):
    """What an engine held at some moment."""

    gpu: frozenset[Content]
    cpu: frozenset[Content]
    window: frozenset[Content]


@dataclass
class NaiveEngine:
    """One pod's cache. `frames` are the messages that it has published so far.

    cpu_capacity: blocks of a CPU tier, which takes every block and says so by its hash alone.
    counted_hashes: name blocks 1, 2, 3, ..., so that another life means other blocks by them.
    window: tokens of the sliding window of a second group, which keeps only the ends of what is
    computed; 0 for a plain model. window_first: that group has the number 0.
    history: after each frame, what was held on the GPU, in the CPU tier and in the window's group.
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
    history: list[Held] = field(default_factory=list)
    now: Callable[[], float] = lambda: 1.0

    def serve(self, prompt: Prompt) -> None:
        """Cache a prompt, sometimes in two steps, sometimes once more than needed."""
        chain = contents(prompt, self.block_size)
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
        """Drop everything."""
        self.copies.clear()
        self.window_copies.clear()
        self._publish([{"type": "AllBlocksCleared"}])

    def restart(self) -> None:
        """A new process in the pod's place."""
        self.copies, self.cpu, self.hashes, self.window_copies = {}, {}, {}, {}
        self.frames, self.history = [], []

    def resident(self, prompt: Prompt) -> int:
        """How many leading blocks of the prompt are cached."""
        return leading(contents(prompt, self.block_size), {c for c, n in self.copies.items() if n})

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
        """Number of the group of full attention."""
        return int(self.window_first and self.window > 0)

    @property
    def _reach(self) -> int:
        return -(-(self.window - 1) // self.block_size)

    def _evict_window(self) -> list[dict[str, Any]]:
        """Sometimes a block of the window's group goes that the main group keeps."""
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
        self, prompt: Prompt, chain: list[Content], start: int, end: int, told: Collection[int]
    ) -> dict[str, Any]:
        """The blocks from `start` to `end` were computed; those `told` are kept."""
        size = self.block_size
        return {
            "type": "BlockStored",
            "block_hashes": [self._wire_hash(chain[index]) for index in told],
            "parent_block_hash": self._wire_hash(chain[start - 1]) if start else None,
            "token_ids": list(prompt.tokens[start * size : end * size]),
            "block_size": size,
            "lora_id": None if prompt.lora_name is None else 7,
            "medium": "GPU",
            "lora_name": prompt.lora_name,
            "extra_keys": [self._extra_keys(prompt, index) for index in told],
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
            frozenset(content for content, copies in of.items() if copies)
            for of in (self.copies, self.window_copies)
        )
        self.history.append(Held(held, frozenset(self.cpu), windows))

    def reusable_tokens(self, prompt: Prompt, held: Held) -> int:
        """What is reused of a prompt if so much is held."""
        chain = contents(prompt, self.block_size)
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
        return self.block_size * reusable(layout, holds, end, self.block_size)


def next_prompt(source: random.Random, prompts: list[Prompt], block_size: int) -> Prompt:
    """A short prompt, often with a beginning that one of `prompts` has."""
    start: tuple[int, ...] = ()
    if prompts and source.random() < 0.7:
        start = source.choice(prompts).tokens
        start = start[: source.randrange(len(start) + 1)]
    length = source.randrange(block_size, block_size * 6)
    tokens = (*start, *(source.randrange(1000) for _ in range(length)))
    return Prompt(tokens[: block_size * 16])


def workload(
    seed: int,
    block_size: int,
    scale: int,
    pods: int,
    requests: int,
    images: bool = True,
    now: Callable[[], float] = lambda: 1.0,
) -> tuple[list[NaiveEngine], list[Prompt]]:
    """Engines that have served a generated workload, and prompts to probe with.

    scale: how many engine blocks a turn of a prompt is to be made of, as it were.
    """
    source = random.Random(seed)
    engines = [
        NaiveEngine(
            f"10.0.0.{number}:8000",
            "sim/model",
            block_size,
            # An eviction costs a prompt one of our blocks, however small the engine's are.
            capacity=(60 if scale == 1 else 180) * scale,
            random=random.Random(source.random()),
            bytes_hashes=number % 3 == 1,
            arrays=number % 2 == 1,
            now=now,
        )
        for number in range(pods)
    ]
    prompts: list[Prompt] = []
    size = block_size * scale
    gallery = [
        (name * 8, size * 2 + source.randrange(90), source.randrange(1, 40)) for name in "abc"
    ]
    systems = [_tokens(source, size * 5 + 3) for _ in range(3)]
    for _ in range(requests):
        tokens = source.choice(systems)
        if prompts and source.random() < 0.4:
            tokens = source.choice(prompts).tokens
        tokens = (*tokens, *_tokens(source, source.randrange(0, size * 6)))
        # An image has one place, as if the tokens there stood for it.
        shown = tuple(source.sample(gallery, source.choice([0, 0, 1, 2]))) if images else ()
        prompt = Prompt(
            tokens,
            source.choice([None, None, "adapter-1", "adapter-2"]),
            source.choice([None, None, None, "tenant-a", "tenant-b"]),
            shown,
        )
        prompts.append(prompt)
        engine = source.choice(engines)
        engine.serve(prompt)
        if source.random() < 0.02:
            engine.reset()
    strangers = [Prompt(_tokens(source, block_size * 4))]
    shorter = [Prompt(p.tokens[: len(p.tokens) // 2], p.lora_name) for p in prompts[::5]]
    return engines, [*prompts, *shorter, *strangers]


def _tokens(source: random.Random, count: int) -> tuple[int, ...]:
    return tuple(
        source.choice([source.randrange(30), source.randrange(150_000)]) for _ in range(count)
    )
