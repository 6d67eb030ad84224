"""What is remembered of one engine's life, so as to tell its frames from another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvevents.sequencing.actions import ReceivedFrame

_REMEMBERED = 256  # frames whose fingerprints are kept


class Incarnation:
    """From an engine's start to its end; frames are numbered from 0.

    last: number of the last frame applied or given up, -1 before the first. head: the highest
    number known to have been published. replayed_to: the highest that came from a replay.
    newest: the engine's own time of the newest frame. epoch: what the engine calls this life, empty
    if it does not say.
    """

    __slots__ = ("_birth", "_seen", "epoch", "head", "last", "newest", "replayed_to")

    def __init__(self) -> None:
        self.last = self.head = self.replayed_to = -1
        self.newest = 0.0
        self.epoch = b""
        self._birth: int | None = None
        self._seen: dict[int, int] = {}

    def accept(self, sequence: int, fingerprint: int, timestamp: float) -> None:
        """The frame is the last one applied."""
        self.last = sequence
        self.head = max(self.head, sequence)
        self.newest = max(self.newest, timestamp)
        seen = self._seen
        seen[sequence] = fingerprint
        if len(seen) > _REMEMBERED:
            del seen[next(iter(seen))]
        if sequence == 0:
            self._birth = fingerprint

    def has(self, arrival: ReceivedFrame) -> bool | None:
        """Whether the frame is of this life; None if it is too long ago, or was never received."""
        known = self._birth if arrival.sequence == 0 else self._seen.get(arrival.sequence)
        return None if known is None else known == arrival.fingerprint

    def dump(self) -> dict[str, Any]:
        """What `load` takes."""
        return {
            "last": self.last,
            "newest": self.newest,
            "epoch": self.epoch,
            "birth": self._birth,
            "seen": list(self._seen.items())[-16:],
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Incarnation:
        """The life that was dumped."""
        life = cls()
        life.last = life.head = dumped["last"]
        life.newest, life._birth = dumped["newest"], dumped["birth"]
        life.epoch = dumped["epoch"]
        life._seen = dict(dumped["seen"])
        return life
