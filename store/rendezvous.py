"""Who of several is to do something: each asks for itself, and all come to the same answer."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def rendezvous_owner(name: str, candidates: Collection[str]) -> str | None:
    """The candidate for `name`, None if there is none.

    When one leaves, only what it was chosen for goes to others; a new one takes its share only.
    """
    return max(candidates, key=lambda candidate: _rank(name, candidate), default=None)


def _rank(name: str, candidate: str) -> bytes:
    return blake2b(f"{name}\0{candidate}".encode(), digest_size=16).digest()
