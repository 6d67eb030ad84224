"""Holder ids: stable numbers for a worker's holders, the same in every replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from indexer.types import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANNOUNCER = None
"""The key of a worker's announcer."""

HolderKey: TypeAlias = "Place | None"
"""What has a holder id: a holder, by its place, or the worker's announcer."""


class StableHolderIds:
    """The holder ids of one worker.

    No two holders ever have the same id. A holder that loses all it holds at once (a clear, a
    restart) gives its id up, and gets a new one when it comes back: rows with the old id then count
    for nothing, and need not be deleted one by one.
    """

    __slots__ = ("ids", "next")

    def __init__(self, ids: Mapping[HolderKey, int] | None = None, next_id: int = 0) -> None:
        self.ids: dict[HolderKey, int] = dict(ids or {})
        """Holder -> its id."""
        self.next = next_id
        """The id to be given next."""

    def id_of(self, key: HolderKey) -> int:
        """Return a holder's id, a new one if it has none."""
        holder_id = self.ids.get(key)
        if holder_id is None:
            holder_id = self.ids[key] = self.next
            self.next += 1
        return holder_id

    def release(self, keys: Iterable[HolderKey]) -> None:
        """Take the ids away from holders that have lost everything."""
        for key in keys:
            self.ids.pop(key, None)

    def scored(self) -> dict[int, Place]:
        """Return id -> place for the holders that can count in scores."""
        return {
            holder_id: place
            for place, holder_id in self.ids.items()
            if place is not None and place.group >= 0
        }

    def copy(self) -> StableHolderIds:
        """Return a copy that changes independently."""
        return StableHolderIds(self.ids, self.next)

    def dump(self) -> list[tuple[int, str | None, int]]:
        """Return id, tier (None for the announcer) and group of each holder, for `load`."""
        return [
            (holder_id, None, 0) if key is None else (holder_id, key.tier, key.group)
            for key, holder_id in self.ids.items()
        ]

    @classmethod
    def load(cls, dumped: Iterable[tuple[int, str | None, int]], next_id: int) -> StableHolderIds:
        """Return the holder ids that were dumped."""
        return cls(
            {
                (ANNOUNCER if tier is None else Place(tier, group)): holder_id
                for holder_id, tier, group in dumped
            },
            next_id,
        )

    def __repr__(self) -> str:
        return f"<StableHolderIds {self.ids}, next {self.next}>"
