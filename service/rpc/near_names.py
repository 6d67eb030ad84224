"""Names of models and pods in the texts of errors: shortened, and the known ones nearest to one."""

from __future__ import annotations

from bisect import bisect_left
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST = 100
"""Characters of a name in a text, at most."""
_COMPARED = 10_000  # names that are looked at, at most
_NEIGHBOURS = 16  # names before and after the given one that are compared letter by letter


def shortened(name: str) -> str:
    """Return the beginning of a name, with dots in the place of what is left out."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def near_names(name: str, known: Collection[str], count: int = 3) -> list[str]:
    """Return up to `count` known names that `name` may be a misspelling of, the nearest first.

    Comparing letters is slow, so only names with a similar beginning or a similar end are compared.
    """
    name = name[:LONGEST]
    names = [each[:LONGEST] for each in islice(known, _COMPARED)]
    near = _neighbours(name, names)
    near += [each[::-1] for each in _neighbours(name[::-1], [each[::-1] for each in names])]
    return get_close_matches(name, dict.fromkeys(near), count)


def _neighbours(name: str, names: list[str]) -> list[str]:
    """Return the names around `name` in alphabetical order: those with the same beginning."""
    names.sort()
    place = bisect_left(names, name)
    return names[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
