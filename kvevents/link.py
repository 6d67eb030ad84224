"""The connections of one source, and who speaks through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvevents.stream import WorkerStream


@dataclass
class Link:
    """up: the connections there are. streams: those that speak, or will, through one of them."""

    up: set[int] = field(default_factory=set)
    streams: set[WorkerStream] = field(default_factory=set)
