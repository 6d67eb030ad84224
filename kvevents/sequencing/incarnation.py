"""One life of an engine process: enough of its frames to tell them from another engine's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvevents.sequencing.actions import ReceivedFrame

_REMEMBERED = 256  # frames whose fingerprints are kept
_SAVED = 16  # of these, frames that a dump contains


class Incarnation:
    """How far the frames of one engine process have been accepted; its frames count from 0.

    Attributes:
        last: number of the last frame that was accepted or given up, -1 before the first.
        highest_known: the highest number that the engine is known to have published.
        replayed_to: the highest number that a replay brought.
        newest_timestamp: the engine's own time of its newest frame.
        epoch: the publisher's name of this incarnation; empty if it sends none.
        last_without_events: number of the newest frame that had an epoch and no events, else -1.
            A heartbeat that a replay brings looks like that, and its number is used again.
    """

    __slots__ = (
        "_fingerprints",
        "_first_fingerprint",
        "epoch",
        "highest_known",
        "last",
        "last_without_events",
        "newest_timestamp",
        "replayed_to",
    )

    def __init__(self) -> None:
        self.last = self.highest_known = self.replayed_to = self.last_without_events = -1
        self.newest_timestamp = 0.0
        self.epoch = b""
        self._first_fingerprint: int | None = None
        self._fingerprints: dict[int, int] = {}

    def accept(self, sequence: int, fingerprint: int, timestamp: float) -> None:
        """Make this frame the last one accepted."""
        self.last = sequence
        self.highest_known = max(self.highest_known, sequence)
        self.newest_timestamp = max(self.newest_timestamp, timestamp)
        fingerprints = self._fingerprints
        fingerprints[sequence] = fingerprint
        if len(fingerprints) > _REMEMBERED:
            del fingerprints[next(iter(fingerprints))]
        if sequence == 0:
            self._first_fingerprint = fingerprint

    def has(self, frame: ReceivedFrame) -> bool | None:
        """Whether this very frame was accepted.

        False: another frame was accepted under its number. None: its number was never accepted, or
        too long ago to remember the fingerprint.
        """
        known = (
            self._first_fingerprint
            if frame.sequence == 0
            else self._fingerprints.get(frame.sequence)
        )
        return None if known is None else known == frame.fingerprint

    def dump(self) -> dict[str, Any]:
        """Plain values for `load`."""
        return {
            "last": self.last,
            "newest": self.newest_timestamp,
            "epoch": self.epoch,
            "birth": self._first_fingerprint,
            "seen": list(self._fingerprints.items())[-_SAVED:],
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Incarnation:
        """The incarnation that was dumped. Raises what a malformed dump makes it raise."""
        incarnation = cls()
        incarnation.last = incarnation.highest_known = dumped["last"]
        incarnation.newest_timestamp = dumped["newest"]
        incarnation.epoch = dumped["epoch"]
        incarnation._first_fingerprint = dumped["birth"]
        incarnation._fingerprints = dict(dumped["seen"])
        return incarnation
