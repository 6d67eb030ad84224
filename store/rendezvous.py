"""Rendezvous hashing: every replica finds the same one of them responsible for something."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def rendezvous_owner(name: str, candidates: Collection[str]) -> str | None:
    """Return the candidate responsible for `name`, None if there are no candidates.

    When a candidate leaves, only what it was responsible for moves; a new one takes its share only.
    """
    return max(candidates, key=lambda candidate: _rank(name, candidate), default=None)


def _rank(name: str, candidate: str) -> bytes:
    return blake2b(f"{name}\0{candidate}".encode(), digest_size=16).digest()
