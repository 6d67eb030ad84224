"""Numbers and names in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST_NAME = 100  # characters of a name off the wire


def some(count: int, noun: str) -> str:
    """Return "1 block", "2 blocks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short(name: str) -> str:
    """Return the beginning of a name, printable, with dots in the place of what is left out."""
    shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def age(seconds: float) -> str:
    """Return how long ago something was."""
    if seconds < 1:
        return "less than a second ago"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return "a, b, c and 4 more"."""
    shown = ", ".join(short(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def by_tier(blocks: Mapping[str, int]) -> str:
    """Return "gpu 3, cpu 4"."""
    return ", ".join(f"{short(tier)} {count}" for tier, count in sorted(blocks.items()))
