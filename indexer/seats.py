"""A worker's seats: what its places and its knowledge are called outside of one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from indexer.types import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KNOWLEDGE = None
Occupant: TypeAlias = "Place | None"
"""Who has a seat: a place, or what the worker's engine hashes mean (`KNOWLEDGE`)."""


class Seats:
    """The seats of one worker. A number is given once, and never again to another occupant.

    numbers: the seat of each occupant that has one. next: the number to be given next.
    """

    __slots__ = ("next", "numbers")

    def __init__(self, numbers: Mapping[Occupant, int] | None = None, following: int = 0) -> None:
        self.numbers: dict[Occupant, int] = dict(numbers or {})
        self.next = following

    def of(self, occupant: Occupant) -> int:
        """Its seat; a new one if it has none."""
        seat = self.numbers.get(occupant)
        if seat is None:
            seat = self.numbers[occupant] = self.next
            self.next += 1
        return seat

    def vacate(self, occupants: Iterable[Occupant]) -> None:
        """They have lost everything; each that comes again gets another seat."""
        for occupant in occupants:
            self.numbers.pop(occupant, None)

    def scored(self) -> dict[int, Place]:
        """Seat -> place of those that can count in scores."""
        return {
            seat: place
            for place, seat in self.numbers.items()
            if place is not None and place.group >= 0
        }

    def copy(self) -> Seats:
        """The same seats, to be changed apart."""
        return Seats(self.numbers, self.next)

    def dump(self) -> list[tuple[int, str | None, int]]:
        """What `load` takes: seat, tier (None: knowledge) and group of each occupant."""
        return [
            (seat, None, 0) if occupant is None else (seat, occupant.tier, occupant.group)
            for occupant, seat in self.numbers.items()
        ]

    @classmethod
    def load(cls, dumped: Iterable[tuple[int, str | None, int]], following: int) -> Seats:
        """The seats that were dumped."""
        return cls(
            {
                (KNOWLEDGE if tier is None else Place(tier, group)): seat
                for seat, tier, group in dumped
            },
            following,
        )

    def __repr__(self) -> str:
        return f"<Seats {self.numbers}, next {self.next}>"
