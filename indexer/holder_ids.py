"""A worker's seats: what its places and its knowledge are called outside of one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from indexer.types import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KNOWLEDGE = None
HolderKey: TypeAlias = "Place | None"
"""Who has a seat: a place, or what the worker's engine hashes mean (`KNOWLEDGE`)."""


class StableHolderIds:
    """The seats of one worker. A number is given once, and never again to another occupant.

    numbers: the seat of each occupant that has one. next: the number to be given next.
    """

    __slots__ = ("ids", "next")

    def __init__(self, numbers: Mapping[HolderKey, int] | None = None, following: int = 0) -> None:
        self.ids: dict[HolderKey, int] = dict(numbers or {})
        self.next = following

    def id_of(self, key: HolderKey) -> int:
        """Its seat; a new one if it has none."""
        holder_id = self.ids.get(key)
        if holder_id is None:
            holder_id = self.ids[key] = self.next
            self.next += 1
        return holder_id

    def release(self, keys: Iterable[HolderKey]) -> None:
        """They have lost everything; each that comes again gets another seat."""
        for key in keys:
            self.ids.pop(key, None)

    def scored(self) -> dict[int, Place]:
        """Seat -> place of those that can count in scores."""
        return {
            holder_id: place
            for place, holder_id in self.ids.items()
            if place is not None and place.group >= 0
        }

    def copy(self) -> StableHolderIds:
        """The same seats, to be changed apart."""
        return StableHolderIds(self.ids, self.next)

    def dump(self) -> list[tuple[int, str | None, int]]:
        """What `load` takes: seat, tier (None: knowledge) and group of each occupant."""
        return [
            (holder_id, None, 0) if key is None else (holder_id, key.tier, key.group)
            for key, holder_id in self.ids.items()
        ]

    @classmethod
    def load(cls, dumped: Iterable[tuple[int, str | None, int]], following: int) -> StableHolderIds:
        """The seats that were dumped."""
        return cls(
            {
                (KNOWLEDGE if tier is None else Place(tier, group)): holder_id
                for holder_id, tier, group in dumped
            },
            following,
        )

    def __repr__(self) -> str:
        return f"<Seats {self.ids}, next {self.next}>"
