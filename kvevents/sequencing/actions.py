"""What the sequencer is given, and the actions that it returns: plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from kvevents.trust import TrustChange
    from kvevents.wire import Batch


class ReceivedFrame(NamedTuple):
    """A frame as the sequencer sees it, live or replayed."""

    sequence: int
    fingerprint: int
    """Equal for equal frames; see `fingerprint_of`."""
    batch: Batch | None
    """The decoded events; None if the payload could not be decoded at all."""
    size: int
    """About how many bytes the frame occupies while it waits."""
    decode_error: str = ""
    """Why some of its events are missing; empty if all are there."""
    epoch: bytes = b""
    """The publisher's name of its incarnation; empty if it sends none."""

    @property
    def timestamp(self) -> float:
        """When the engine published the frame, by its own clock; 0.0 if that cannot be read."""
        return 0.0 if self.batch is None else self.batch.timestamp


class ReplayReason(Enum):
    """Why a replay is requested."""

    START = "start"
    """To learn what was published before we listened."""
    GAP = "gap"
    """To fill a gap in the sequence numbers."""
    VERIFY = "verify"
    """To find out whether the publisher is still the same engine."""
    POLL = "poll"
    """To notice, from time to time, frames that were lost without a trace."""
    REBUILD = "rebuild"
    """To apply everything from frame 0 again, if the engine still has frame 0."""
    RESYNC = "resync"
    """To apply again whatever the engine still has, because an operator asked for it."""


# Actions. The stream performs them in the order in which the sequencer returns them.


class Apply(NamedTuple):
    """Apply the events of a frame."""

    frame: ReceivedFrame


class EngineRestarted(NamedTuple):
    """Another engine has taken the worker's place: drop what died with the former process."""


class StartOver(NamedTuple):
    """Drop everything that is claimed of the worker: it is about to be learned again."""


@dataclass(frozen=True, eq=False, slots=True)
class ReplayRequest:
    """Request the frames from `start` on. Answers carry the request: only the newest counts."""

    reason: ReplayReason
    start: int


Action: TypeAlias = "Apply | EngineRestarted | StartOver | ReplayRequest | TrustChange"


@dataclass(slots=True)
class FrameCounts:
    """What happened to a worker's frames."""

    gaps: int = 0
    """Gaps seen in the sequence numbers."""
    missed: int = 0
    """Frames that were never received."""
    duplicates: int = 0
    """Frames that came again."""
    late: int = 0
    """Frames that came too late to be applied."""
    superseded: int = 0
    """Frames of a former engine that were waiting when another one took its place."""
    restarts: int = 0
    """Engines found to have been replaced."""
    replays: int = 0
    """Replays requested."""
    replay_failures: int = 0
    """Replays without a complete answer."""
    replayed: int = 0
    """Frames applied from replays."""
    overflows: int = 0
    """Times there was no memory for live frames that had to wait for a replay."""
    rivals: int = 0
    """Frames that another live connection sent in the worker's name."""
