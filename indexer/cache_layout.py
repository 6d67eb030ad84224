"""Cache layouts: the groups of a worker's KV cache, and how far each lets the engine reuse blocks.

Most current models mix kinds of attention. Each kind has *cache groups* of its own, whose blocks
an engine stores and evicts independently. A group's number says nothing about its kind. An engine
reuses a prompt up to an end that all of its groups can serve. They need:

    main            full attention of any sort: all blocks from the first one on
    sliding window  the blocks that the window before the end covers
    mamba           the state at the end
    chunked         the blocks from the beginning of the last attention chunk on

The end is also a multiple of every group's block size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_GROUPS = 32
"""Groups of a worker that count at most: each is one bit of a mask."""

MAX_RULES = 8
"""Rules of a worker that count at most; `indexer.kernel.worker_plans` has room for as many."""

_MAX_LENGTH = 2**31 - 1


class Attention(IntEnum):
    """Kinds of attention by what they need of a group's blocks; see the module."""

    IGNORED = 0
    """An unknown kind, whose groups count for nothing."""
    MAIN = 1
    SLIDING = 2
    MAMBA = 3
    CHUNKED = 4


_KINDS = {
    "": Attention.MAIN,
    "full_attention": Attention.MAIN,
    "mla_attention": Attention.MAIN,
    "sink_full_attention": Attention.MAIN,
    "sliding_window": Attention.SLIDING,
    "sliding_window_mla": Attention.SLIDING,
    "mamba": Attention.MAMBA,
    "chunked_local_attention": Attention.CHUNKED,
}


class Group(NamedTuple):
    """One cache group as its engine announces it."""

    kind: str = ""
    """vLLM's `kv_cache_spec_kind`; "" from an engine that names none."""
    window: int = 0
    """Tokens of a sliding window; 0 for other kinds."""
    block_size: int = 0
    """Tokens of its blocks; 0: as many as a key of the worker stands for."""

    @property
    def attention(self) -> Attention:
        """The kind of attention that the group serves."""
        return _KINDS.get(self.kind, Attention.IGNORED)


class Rule(NamedTuple):
    """What alike groups need so that an engine reuses a prompt; lengths in the worker's keys."""

    attention: Attention
    mask: int
    """The bits of the groups. All of them must hold a block."""
    block: int
    """The length of an engine's block."""
    reach: int
    """Blocks that a sliding window needs before the end, or the length of an attention chunk."""


class ReusePlan(NamedTuple):
    """A layout, ready for the prefix walk; lengths in the worker's keys."""

    bits: dict[int, int]
    """Group number -> its bit in masks."""
    main: int
    """The bits of the main groups."""
    main_block: int
    """What a match in all main groups is rounded down to a multiple of."""
    align: int
    """What the end of the reused blocks is a multiple of."""
    dropped: int
    """Blocks before the end that the engine computes again, for speculative decoding."""
    rules: tuple[Rule, ...]
    """What the other groups need."""
    is_bound: bool
    """Whether something about the engine is unknown, so that it may reuse less."""


@dataclass(frozen=True)
class CacheLayout:
    """How the cache of one worker is divided, as far as its engine and the configuration tell."""

    key_block_size: int = 0
    """Tokens that one key of this worker stands for; 0: as many as a block of an answer has."""
    groups: Mapping[int, Group] = field(default_factory=dict)
    """The cache groups by number; none: one main group with number 0."""
    attention_chunk: int = 0
    """Tokens of a chunk of chunked local attention; 0 if unknown."""
    speculative: bool | None = False
    """Whether a draft model (EAGLE, MTP) costs a block; None if unknown."""
    offload_chunks: Mapping[str, int] = field(default_factory=dict)
    """Tier -> tokens that it loads as a whole."""

    def plan(self, key_block_size: int) -> ReusePlan:
        """Return the layout as the prefix walk needs it, for keys of `key_block_size` tokens."""
        groups = dict(sorted(self.groups.items())[:MAX_GROUPS]) or {0: Group()}
        bits = {number: 1 << index for index, number in enumerate(groups)}
        main, main_block, align = 0, 1, 1
        is_bound = self.speculative is None or len(self.groups) > MAX_GROUPS
        masks: dict[tuple[Attention, int, int], int] = {}
        for number, group in groups.items():
            attention, block = group.attention, max(1, group.block_size // key_block_size)
            reach = self._reach(group, key_block_size)
            if attention is Attention.IGNORED or reach is None:
                is_bound = True
                continue
            align = lcm(align, block)
            if attention is Attention.MAIN:
                main, main_block = main | bits[number], lcm(main_block, block)
            elif reach or attention is Attention.MAMBA:
                need = (attention, block, reach)  # groups with equal needs share a rule
                masks[need] = masks.get(need, 0) | bits[number]
        rules = tuple(
            Rule(attention, mask, min(block, _MAX_LENGTH), min(reach, _MAX_LENGTH))
            for (attention, block, reach), mask in masks.items()
        )
        if self.speculative and rules:
            is_bound = True  # the groups that the draft model uses are unknown
        return ReusePlan(
            bits,
            main,
            min(main_block, _MAX_LENGTH),
            min(align, _MAX_LENGTH),
            min(main_block, _MAX_LENGTH) if self.speculative else 0,
            rules[:MAX_RULES],
            is_bound or len(rules) > MAX_RULES,
        )

    def _reach(self, group: Group, key_block_size: int) -> int | None:
        """Return a group's `Rule.reach`; 0 if its kind needs none, None if it is unknown."""
        if group.attention is Attention.SLIDING:
            if group.window <= 0:
                return None
            size = group.block_size or key_block_size
            # The token after the end sees itself and window - 1 tokens before: in whole blocks of
            # the engine, and each of those in keys.
            return -(-(group.window - 1) // size) * max(1, size // key_block_size)
        if group.attention is Attention.CHUNKED:
            chunk = self.attention_chunk
            return chunk // key_block_size if chunk and chunk % key_block_size == 0 else None
        return 0

    def offload_chunk(self, tier: str, key_block_size: int) -> int:
        """Return how many of the worker's keys the tier loads as a whole; 0: each on its own."""
        chunk = self.offload_chunks.get(tier, 0) // key_block_size
        return chunk if chunk > 1 else 0

    def dump(self) -> list[Any]:
        """Return the layout as `load` takes it."""
        return [
            self.key_block_size,
            [[number, *group] for number, group in self.groups.items()],
            self.attention_chunk,
            self.speculative,
            list(self.offload_chunks.items()),
        ]

    @classmethod
    def load(cls, dumped: Any) -> CacheLayout:
        """Return the layout that was dumped.

        A malformed dump raises TypeError or ValueError.
        """
        size, groups, chunk, speculative, chunks = dumped
        return cls(
            size,
            {number: Group(*fields) for number, *fields in groups},
            chunk,
            speculative,
            dict(chunks),
        )
