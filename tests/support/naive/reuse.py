"""What an engine reuses of a prompt: each kind of attention shortens it until all agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil, lcm

from indexer import Attention, CacheLayout, Group

Holds = Callable[[int, int], bool]
"""(group number, block index) -> whether the group holds that block of the prompt."""


def reusable_blocks(layout: CacheLayout, holds: Holds, end: int, key_block_size: int = 16) -> int:
    """How many of the first `end` blocks of `key_block_size` tokens are reused."""
    groups = layout.groups or {0: Group()}
    sizes = [max(1, of.block_size // key_block_size) for of in groups.values()]
    align = lcm(*sizes)
    kinds: dict[tuple[int, Group], list[int]] = {}
    for number, of in groups.items():
        kinds.setdefault((of.attention, of), []).append(number)
    while True:
        before = end
        for (_, of), numbers in sorted(kinds.items(), key=lambda kind: kind[0][0]):
            end = _largest(of, numbers, layout, holds, end, align, key_block_size)
        if end == before:
            return end


def _largest(
    of: Group,
    numbers: Collection[int],
    layout: CacheLayout,
    holds: Holds,
    end: int,
    align: int,
    key_block_size: int,
) -> int:
    """The largest end, at most `end`, that the groups of one kind allow."""
    size = of.block_size or key_block_size

    def held(index: int) -> bool:
        return all(holds(number, index) for number in numbers)

    for candidate in range(end - end % align, 0, -align):
        if of.attention is Attention.MAIN:
            needed: Collection[int] = range(candidate)
        elif of.attention is Attention.SLIDING:
            blocks = ceil((of.window - 1) / size) * (size // key_block_size)
            needed = range(max(0, candidate - blocks), candidate)
        elif of.attention is Attention.MAMBA:
            needed = [candidate - 1]
        else:
            chunk = layout.attention_chunk // key_block_size
            needed = range(candidate // chunk * chunk, candidate)
        if all(held(index) for index in needed):
            return candidate
    return 0


LAYOUTS: Mapping[str, CacheLayout] = {
    name: CacheLayout(16, groups, attention_chunk=chunk)
    for name, groups, chunk in (
        ("plain", {0: Group("full_attention", 0, 16)}, 0),
        ("window", {0: Group("full_attention", 0, 16), 1: Group("sliding_window", 40, 16)}, 0),
        ("window first", {0: Group("sliding_window", 17, 16), 1: Group("mla_attention", 0, 16)}, 0),
        ("mamba", {0: Group("mamba", 0, 16), 1: Group("full_attention", 0, 16)}, 0),
        ("two main", {0: Group("full_attention", 0, 16), 1: Group("mla_attention", 0, 16)}, 0),
        (
            "chunked",
            {0: Group("full_attention", 0, 16), 1: Group("chunked_local_attention", 0, 16)},
            48,
        ),
    )
}
