"""KV-cache groups: which attention each part of a worker's cache serves, and what that lets reuse.

Most current models mix kinds of attention. Each kind has *groups* of its own, whose blocks an
engine stores and evicts apart. A group's number says nothing about its kind. Of a prompt an engine
reuses only what all of its groups can serve:

    main            full attention of any sort: all blocks from the first one on
    sliding window  the blocks that the window before the end covers
    mamba           the state at the end
    chunked         the blocks from the beginning of the last attention chunk on

and only as far as a multiple of every group's block size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_GROUPS = 32
"""How many groups of a worker can count: each is one bit of a mask."""

MOST_RULES = 8
_LONGEST = 2**31 - 1


class Attention(IntEnum):
    """What a group's kind of attention needs of its blocks; see the module."""

    IGNORED = 0
    """Nothing is known of it."""
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
    """One KV-cache group as its engine announces it.

    kind: vLLM's `kv_cache_spec_kind`; "" where an engine names none. window: tokens of a sliding
    window, 0 for other kinds. block_size: tokens of its blocks, 0 if as long as a block key's.
    """

    kind: str = ""
    window: int = 0
    block_size: int = 0

    @property
    def attention(self) -> Attention:
        """What this kind needs of its blocks."""
        return _KINDS.get(self.kind, Attention.IGNORED)


class Rule(NamedTuple):
    """What groups of one kind need, in blocks of the worker's keys.

    mask: bits of its groups; all of them must hold a block. block: length of an engine's block.
    reach: a sliding window's blocks before the end, or the length of an attention chunk.
    """

    attention: Attention
    mask: int
    block: int
    reach: int


class ReusePlan(NamedTuple):
    """A layout, ready for the prefix walk; all lengths in blocks of the worker's keys.

    bits: group number -> its bit. main: bits of the main groups. main_block: what a run of blocks
    in all main groups is rounded down to. align: what the end of what is reused is a multiple of.
    dropped: how much of it is not reused after all, for the sake of speculative decoding. rules: of
    the other groups. is_bound: whether something is not known, so that less may be reused.
    """

    bits: dict[int, int]
    main: int
    main_block: int
    align: int
    dropped: int
    rules: tuple[Rule, ...]
    is_bound: bool


@dataclass(frozen=True)
class CacheLayout:
    """How the cache of one worker is divided, as far as its engine and the configuration tell.

    key_block_size: tokens that one key of this worker's blocks stands for; 0: as many as a prompt's
    do. groups: by number; none: all is one main group. attention_chunk: tokens of a chunk of
    chunked local attention, 0 if not known. speculative: whether a draft model (EAGLE, MTP) costs a
    block; None if that is not known. offload_chunks: tier -> tokens that it loads as a whole.
    """

    key_block_size: int = 0
    groups: Mapping[int, Group] = field(default_factory=dict)
    attention_chunk: int = 0
    speculative: bool | None = False
    offload_chunks: Mapping[str, int] = field(default_factory=dict)

    def plan(self, key_block_size: int) -> ReusePlan:
        """What the walk needs to know, for keys of `key_block_size` tokens."""
        groups = dict(sorted(self.groups.items())[:MOST_GROUPS]) or {0: Group()}
        bits = {number: 1 << at for at, number in enumerate(groups)}
        main, main_block, align = 0, 1, 1
        is_bound = self.speculative is None or len(self.groups) > MOST_GROUPS
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
                name = (attention, block, reach)
                masks[name] = masks.get(name, 0) | bits[number]
        rules = tuple(Rule(attention, mask, *of) for (attention, *of), mask in masks.items())
        if self.speculative and rules:
            is_bound = True  # which of the groups the draft model uses is not known
        return ReusePlan(
            bits,
            main,
            min(main_block, _LONGEST),
            min(align, _LONGEST),
            min(main_block, _LONGEST) if self.speculative else 0,
            rules[:MOST_RULES],
            is_bound or len(rules) > MOST_RULES,
        )

    def _reach(self, group: Group, key_block_size: int) -> int | None:
        """See `Rule`; 0 where it is not needed, None if it is needed and not known."""
        if group.attention is Attention.SLIDING:
            if not group.window:
                return None
            size = group.block_size or key_block_size
            return -(-(group.window - 1) // size) * max(1, size // key_block_size)
        if group.attention is Attention.CHUNKED:
            chunk = self.attention_chunk
            return chunk // key_block_size if chunk and chunk % key_block_size == 0 else None
        return 0

    def offload_chunk(self, tier: str, key_block_size: int) -> int:
        """How many blocks of the worker's keys the tier loads as a whole; 0: each on its own."""
        chunk = self.offload_chunks.get(tier, 0) // key_block_size
        return chunk if chunk > 1 else 0

    def dump(self) -> list[Any]:
        """What `load` takes."""
        return [
            self.key_block_size,
            [[number, *group] for number, group in self.groups.items()],
            self.attention_chunk,
            self.speculative,
            list(self.offload_chunks.items()),
        ]

    @classmethod
    def load(cls, dumped: Any) -> CacheLayout:
        """The layout that was dumped. Raises what a malformed dump makes it raise."""
        size, groups, chunk, speculative, chunks = dumped
        return cls(
            size,
            {number: Group(*of) for number, *of in groups},
            chunk,
            speculative,
            dict(chunks),
        )
