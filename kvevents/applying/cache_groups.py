"""The KV-cache groups of one worker, as its events announce them.

Only BlockStored has the kind of a group and the size of its blocks; both are remembered for events
that have only the group's number. All events of a batch are read before any is applied, because an
engine announces its groups in one batch, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

from indexer import CacheLayout, Group
from kvevents.wire import GPU_TIER, BlockStored, tier_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvevents.wire import Event

_MAX_GROUPS = 32
_MAX_OFFLOAD_TIERS = 64  # as many as the index has
_HIGHEST_GROUP = 65_535
_LARGEST_BLOCK = 65_536
_UNKNOWN = "unknown"
_SELF_DESCRIBING = "CPU"  # as vLLM's OffloadingConnector spells it


@dataclass(frozen=True)
class EngineSettings:
    """Settings of a model's engines that events do not carry."""

    attention_chunk: int = 0
    """Tokens of a chunk of chunked local attention; 0 if not known."""
    speculative_decoding: bool | None = None
    """Whether a draft model makes the engine reuse one block less; None if not known."""
    offload_chunk_blocks: int = 0
    """Blocks that an offload tier stores and loads as a whole; 0 if not known."""


class CacheGroups:
    """The cache groups of one worker.

    Args:
        block_size: tokens of the block keys that answers count in.
        settings: what the worker's engine was started with.

    Attributes:
        layout: the groups as the index needs them.
        span: block keys that an engine hash of the main groups stands for.
    """

    def __init__(self, block_size: int, settings: EngineSettings | None = None) -> None:
        self._block_size = block_size
        self._settings = settings or EngineSettings()
        self._groups: dict[int, Group] = {}
        self._offload_hashes: dict[str, int] = {}  # tier -> hashes of an event, in common
        self._offload_sizes: dict[str, int] = {}  # tier -> tokens of a block there
        self._key_block_size = 0
        self._looks_ahead = False
        self._is_of_former_engine = False
        self._has_parts = False
        self.layout = CacheLayout()
        self.span = 1

    @property
    def key_block_size(self) -> int:
        """Tokens of the worker's block keys, which divide the blocks of all its groups."""
        return self._key_block_size or self._block_size

    @property
    def engine_block_size(self) -> int | None:
        """Tokens of a block of the main groups, None before one was announced."""
        sizes = [group.block_size for group in self._groups.values() if not _is_other(group)]
        return max(sizes, default=None)

    @property
    def has_partial_blocks(self) -> bool:
        """Whether the engine announces parts of blocks, so that some parents never come."""
        sizes = {group.block_size for group in self._groups.values()}
        return (
            self._has_parts
            or len(sizes) > 1
            or any(group.kind == "mamba" for group in self._groups.values())
        )

    def get(self, number: int) -> Group | None:
        """The group of this number, None if it was not announced."""
        return self._groups.get(number)

    def knows(self, event: BlockStored) -> bool:
        """Whether a GPU event with tokens for all its blocks, learned before, tells nothing new."""
        group = self._groups.get(event.group_idx or 0)
        return group is None or (
            event.kv_cache_spec_kind in (None, "", group.kind)
            and event.kv_cache_spec_sliding_window in (None, 0, group.window)
            and event.block_size == group.block_size
        )

    def restart(self) -> None:
        """Expect the groups of another engine, from its next event on."""
        self._is_of_former_engine = True

    def load(self, layout: CacheLayout) -> None:
        """Go on with the groups of a layout that was saved."""
        self._groups = dict(layout.groups)
        self._key_block_size = layout.key_block_size
        self._offload_sizes = dict(layout.offload_chunks)
        self._looks_ahead = layout.speculative is None
        self.layout = self._compose()

    def learn(self, events: Iterable[Event]) -> bool:
        """Read the events of a batch; returns whether `layout` has changed."""
        changed = False
        for event in events:
            if isinstance(event, BlockStored) and 0 < event.block_size <= _LARGEST_BLOCK:
                number = event.group_idx or 0
                if tier_of(event.medium) != GPU_TIER:
                    changed |= self._learn_offload(event)
                elif 0 <= number <= _HIGHEST_GROUP:
                    changed |= self._learn_group(number, event)
        if changed:
            self.layout = self._compose()
        return changed

    def _learn_group(self, number: int, event: BlockStored) -> bool:
        if self._is_of_former_engine:
            self._groups, self._is_of_former_engine, self._has_parts = {}, False, False
        known = self._groups.get(number)
        looks_ahead = bool(event.looks_ahead)
        if known is None and len(self._groups) >= _MAX_GROUPS:
            return False
        kind = event.kv_cache_spec_kind or (known.kind if known else "")
        if not kind and _is_sparse(event):
            kind = _UNKNOWN  # an older engine, which does not announce the kind
        window = event.kv_cache_spec_sliding_window or (known.window if known else 0)
        size = max(event.block_size, known.block_size if known else 0)
        self._has_parts |= known is not None and event.block_size != known.block_size
        group = Group(kind, window, size)
        changed = group != known or looks_ahead != (looks_ahead and self._looks_ahead)
        self._groups[number] = group
        self._looks_ahead |= looks_ahead
        return changed

    def _learn_offload(self, event: BlockStored) -> bool:
        """Several hashes with tokens in an offload tier are a chunk, or one long block."""
        tier, size, count = tier_of(event.medium), event.block_size, len(event.block_hashes)
        if not event.token_ids or not count:
            return False
        if tier not in self._offload_sizes and len(self._offload_sizes) >= _MAX_OFFLOAD_TIERS:
            return False
        before = (self._offload_hashes.get(tier), self._offload_sizes.get(tier))
        if event.medium != _SELF_DESCRIBING or event.extra_keys:
            count = 1
        self._offload_hashes[tier] = gcd(self._offload_hashes.get(tier, 0), count)
        self._offload_sizes[tier] = size
        return before != (self._offload_hashes[tier], size)

    def _compose(self) -> CacheLayout:
        settings = self._settings
        sizes = [group.block_size for group in self._groups.values()]
        self._key_block_size = gcd(self.key_block_size, *(sizes or self._offload_sizes.values()))
        self.span = max(1, (self.engine_block_size or 0) // self._key_block_size)
        speculative = settings.speculative_decoding
        if speculative is None and not self._looks_ahead:
            speculative = False
        return CacheLayout(
            self._key_block_size,
            dict(self._groups),
            settings.attention_chunk,
            speculative,
            self._offload_chunks(),
        )

    def _offload_chunks(self) -> dict[str, int]:
        """Tier -> tokens loaded as a whole, where that is more than one block of the engine."""
        block = self.engine_block_size or 0
        chunks = {
            tier: size * self._offload_hashes.get(tier, 1)
            for tier, size in self._offload_sizes.items()
        }
        if self._settings.offload_chunk_blocks and block:
            configured = block * self._settings.offload_chunk_blocks
            chunks = dict.fromkeys([*chunks, *_OFFLOAD_TIERS], configured)
        return {tier: tokens for tier, tokens in chunks.items() if tokens > block}


_OFFLOAD_TIERS = ("cpu", "disk", "shared_storage", "object_store")


def _is_other(group: Group) -> bool:
    return group.attention.name != "MAIN"


def _is_sparse(event: BlockStored) -> bool:
    return len(event.block_hashes) * event.block_size < len(event.token_ids)
