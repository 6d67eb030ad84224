"""Routings, their confirmation by events and their outcomes, against a naive model of lists."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from indexer import CacheLayout, EngineHash, KeyScheme, MemoryIndex, Place, PromptKeys, Worker
from service.routing import OutcomeLimits, Promises, Routing, RoutingLimits, ScoredKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "m"
BLOCK = 4
WORKERS = [Worker("a:1", 0), Worker("a:1", 1), Worker("b:1", 0)]
Prompt = tuple[int, ...]
# Prompts that share prefixes of all lengths; the last tokens of some make no full block.
PROMPTS: list[Prompt] = [
    tuple(range(20)),
    tuple(range(16)),
    (*range(8), *range(50, 60)),
    (*range(8), *range(50, 54), *range(70, 78)),
    tuple(range(90, 95)),
]
SHARE, OUTCOMES = 0.3, 3
scheme = KeyScheme(MODEL, BLOCK)
workers = st.sampled_from(WORKERS)
prompts = st.sampled_from(PROMPTS)


def blocks_of(prompt: Sequence[int]) -> list[Prompt]:
    """A block is named by all tokens up to its end."""
    return [tuple(prompt[:end]) for end in range(BLOCK, len(prompt) + 1, BLOCK)]


def keys_of(prompt: Prompt, size: int = BLOCK) -> array[int]:
    return PromptKeys(scheme, array("Q", prompt)).block_keys(size)


@dataclass
class Decision:
    handle: bytes
    worker: Worker
    blocks: list[Prompt]
    expires_at: float


class RoutingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.doubted: list[Worker] = []
        self.index = MemoryIndex(2**20)
        limits = RoutingLimits(2**22, 50.0, 100.0, 1000, OutcomeLimits(SHARE, OUTCOMES, 0.0))
        self.routing = Routing(self.index, limits, self.doubted.append, lambda: self.time)
        self.held: dict[Worker, set[Prompt]] = {}
        self.decisions: list[Decision] = []
        self.handles: dict[bytes, tuple[Prompt, float]] = {}
        self.promised: dict[tuple[bytes, Worker], tuple[int, bool]] = {}
        self.recent: dict[Worker, list[tuple[int, int]]] = {worker: [] for worker in WORKERS}
        self.expected_doubts: list[Worker] = []

    @initialize(halves=st.booleans())
    def join(self, halves: bool) -> None:
        """One worker may have keys of half the size."""
        for worker in WORKERS:
            self.index.join(worker, MODEL)
            self.held[worker] = set()
            self.index.describe(worker, CacheLayout(key_block_size=BLOCK))
        self.half = WORKERS[1] if halves else None
        if halves:
            self.index.describe(WORKERS[1], CacheLayout(key_block_size=BLOCK // 2))

    @rule(prompt=prompts, promised=st.integers(0, 20), exact=st.booleans())
    def score(self, prompt: Prompt, promised: int, exact: bool) -> None:
        asked = PromptKeys(scheme, array("Q", prompt))
        self.index.match(MODEL, asked)
        asked.block_keys(BLOCK)
        count = len(WORKERS)
        promises = Promises(
            WORKERS, array("I", [promised] * count), array("I", [0] * count), bytes([exact] * count)
        )
        handle = self.routing.handles.add(ScoredKeys(MODEL, BLOCK, asked.known_keys, promises, 20))
        assert handle not in self.handles
        self.handles[handle] = prompt, self.time + 50.0
        for worker in WORKERS:
            self.promised[handle, worker] = promised, exact

    @rule(data=st.data(), worker=workers, seconds=st.integers(1, 10))
    def record(self, data: st.DataObject, worker: Worker, seconds: int) -> None:
        valid = [handle for handle, (_, until) in self.handles.items() if until > self.time]
        if not valid or worker not in self.held:
            return
        handle = valid[data.draw(st.integers(0, len(valid) - 1))]  # their bytes are random
        self.routing.record(handle, worker.pod, worker.rank, seconds)
        blocks = blocks_of(self.handles[handle][0])
        expires_at = self.time + seconds
        for decision in self.decisions:
            if (decision.handle, decision.worker) == (handle, worker):
                decision.expires_at = max(decision.expires_at, expires_at)
                return
        if blocks[-1] not in self.held[worker]:
            self.decisions.append(Decision(handle, worker, blocks, expires_at))

    @rule(worker=workers, prompt=prompts, first=st.integers(0, 4), count=st.integers(1, 5))
    def store(self, worker: Worker, prompt: Prompt, first: int, count: int) -> None:
        """The engine stores some blocks in a row."""
        blocks = blocks_of(prompt)[first : first + count]
        if not blocks or worker not in self.held:
            return
        ratio = 2 if worker == self.half else 1
        keys = keys_of(prompt, BLOCK // ratio)[first * ratio : (first + len(blocks)) * ratio]
        hashes = keys_of(prompt)[first : first + len(blocks)]
        self.index.store(worker, Place("gpu"), hashes, keys, new_copies=False)
        self.confirm(worker, blocks)

    @rule(worker=workers, prompt=prompts, tier=st.sampled_from(["gpu", "cpu"]))
    def store_again(self, worker: Worker, prompt: Prompt, tier: str) -> None:
        """The engine stores what it has announced before, by its hashes alone."""
        hashes = keys_of(prompt)
        known = [self.index.key_of(worker, EngineHash(each)) is not None for each in hashes]
        self.index.store_known(worker, Place(tier), hashes, new_copies=False)
        found = [
            block for block, is_known in zip(blocks_of(prompt), known, strict=True) if is_known
        ]
        if worker in self.held:
            self.confirm(worker, found)

    def confirm(self, worker: Worker, blocks: list[Prompt]) -> None:
        self.held[worker].update(blocks)
        self.decisions = [
            each
            for each in self.decisions
            if each.worker != worker or each.blocks[-1] not in blocks
        ]

    @rule(worker=workers, prompt=prompts, number=st.integers(0, 4))
    def evict(self, worker: Worker, prompt: Prompt, number: int) -> None:
        hashes = keys_of(prompt)[number : number + 1]
        for tier in ("gpu", "cpu"):
            self.index.remove(worker, Place(tier), hashes)
        self.held.get(worker, set()).difference_update(blocks_of(prompt)[number : number + 1])

    @rule(worker=workers)
    def restart(self, worker: Worker) -> None:
        if worker in self.held:
            self.index.restart(worker, ("gpu", "cpu"))
            self.held[worker] = set()
            self.decisions = [each for each in self.decisions if each.worker != worker]

    @rule(seconds=st.integers(1, 12), tidy=st.booleans())
    def wait(self, seconds: int, tidy: bool) -> None:
        self.time += seconds
        if tidy:
            self.routing.tidy()
        self.decisions = [each for each in self.decisions if each.expires_at > self.time]

    @rule(data=st.data(), cached=st.integers(0, 20))
    def report(self, data: st.DataObject, cached: int) -> None:
        routed = list(self.routing._open)
        if not routed:
            return
        handle = routed[data.draw(st.integers(0, len(routed) - 1))]
        worker = data.draw(st.sampled_from(sorted(self.routing._open[handle].workers)))
        promised, exact = self.promised.pop((handle, worker), (0, False))
        self.routing.report(handle, worker.pod, worker.rank, cached, {})
        if not (promised and exact):
            return
        recent = self.recent[worker]
        recent.append((promised, max(0, promised - cached)))
        if len(recent) == OUTCOMES:
            if sum(missing for _, missing in recent) > SHARE * sum(each for each, _ in recent):
                self.expected_doubts.append(worker)
                recent.clear()
            else:
                del recent[0]

    @invariant()
    def every_prompt_is_speculative_as_far_as_live_decisions_reach(self) -> None:
        for prompt in PROMPTS:
            expected: dict[Worker, int] = {}
            for decision in self.decisions:
                common = len(set(blocks_of(prompt)) & set(decision.blocks))
                if common:
                    expected[decision.worker] = max(expected.get(decision.worker, 0), common)
            asked = PromptKeys(scheme, array("Q", prompt))
            assert self.routing.decisions.match(MODEL, asked) == expected

    @invariant()
    def decisions_are_counted(self) -> None:
        self.routing.decisions.expire()
        assert len(self.routing.decisions) == len(self.decisions)
        assert (self.routing.decisions.bytes > 0) == bool(self.decisions)

    @invariant()
    def those_who_deliver_too_little_are_doubted(self) -> None:
        assert self.doubted == self.expected_doubts


RoutingMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40)
TestRouting = RoutingMachine.TestCase


@pytest.mark.soak
def test_routings_follow_the_naive_model_through_many_more_examples() -> None:
    more = settings(max_examples=10_000, stateful_step_count=60)
    run_state_machine_as_test(RoutingMachine, settings=more)
