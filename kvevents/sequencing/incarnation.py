"""One life of an engine process: enough of its frames to tell them from another engine's."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvevents.sequencing.actions import ReceivedFrame

_REMEMBERED = 256  # frames whose fingerprints are kept
_SAVED = 16  # of these, frames that a dump contains
_GAPS = 64  # runs of numbers given up that are remembered


class Incarnation:
    """How far the frames of one engine process have been accepted; its frames count from 0.

    Attributes:
        last: number of the last frame that was accepted or given up, -1 before the first.
        last_live: the highest number of a live frame.
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
        "_given_up",
        "epoch",
        "highest_known",
        "last",
        "last_live",
        "last_without_events",
        "newest_timestamp",
        "replayed_to",
    )

    def __init__(self) -> None:
        self.last = self.last_live = self.highest_known = self.replayed_to = (
            self.last_without_events
        ) = -1
        self.newest_timestamp = 0.0
        self.epoch = b""
        self._first_fingerprint: int | None = None
        self._fingerprints: dict[int, int] = {}
        self._given_up: deque[range] = deque(maxlen=_GAPS)

    def accept(self, sequence: int, fingerprint: int, timestamp: float) -> None:
        """Make this frame the last one accepted."""
        self.last = sequence
        # Not `max`: this is done for every frame.
        if sequence > self.highest_known:  # noqa: PLR1730
            self.highest_known = sequence
        if timestamp > self.newest_timestamp:  # noqa: PLR1730
            self.newest_timestamp = timestamp
        fingerprints = self._fingerprints
        fingerprints[sequence] = fingerprint
        if len(fingerprints) > _REMEMBERED:
            del fingerprints[next(iter(fingerprints))]
        if sequence == 0:
            self._first_fingerprint = fingerprint

    def give_up_before(self, sequence: int) -> None:
        """Make `sequence` the next one, without the frames before it that have not come."""
        self._given_up.append(range(self.last + 1, sequence))
        self.last = sequence - 1

    def has_given_up(self, sequence: int) -> bool:
        """Whether the frame of this number was given up, and may yet come."""
        return any(sequence in gap for gap in self._given_up)

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
        incarnation.last = incarnation.last_live = incarnation.highest_known = dumped["last"]
        incarnation.newest_timestamp = dumped["newest"]
        incarnation.epoch = dumped["epoch"]
        incarnation._first_fingerprint = dumped["birth"]
        incarnation._fingerprints = dict(dumped["seen"])
        return incarnation
