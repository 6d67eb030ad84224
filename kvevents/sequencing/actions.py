"""What comes in of a worker's frames, and what is then to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kvevents.wire import Batch


class ReceivedFrame(NamedTuple):
    """A frame that has come in, live or replayed.

    fingerprint: the same for the same frame. batch: None if its payload could not be decoded at
    all. flaw: why its events are not all there, or "". size: about the bytes it occupies. epoch:
    what the engine calls its life, empty if it does not say.
    """

    sequence: int
    fingerprint: int
    batch: Batch | None
    size: int
    flaw: str = ""
    epoch: bytes = b""

    @property
    def timestamp(self) -> float:
        """When the engine says it published the frame; 0.0 if that cannot be read."""
        return 0.0 if self.batch is None else self.batch.timestamp


class ReplayReason(Enum):
    """What a replay is asked for."""

    START = "start"
    """To learn what was published before we listened."""
    GAP = "gap"
    """To fill a hole."""
    VERIFY = "verify"
    """To see whether the publisher is the one it was."""
    POLL = "poll"
    """To see whether all is well, from time to time."""
    REBUILD = "rebuild"
    """To apply everything again, if everything is still there."""
    RESYNC = "resync"
    """To apply again what is still there: an operator's wish."""


@dataclass(frozen=True, eq=False, slots=True)
class ReplayRequest:
    """A replay to ask for, from the frame `start` on. Answers carry it: only the newest counts."""

    purpose: ReplayReason
    start: int


@dataclass(frozen=True, slots=True)
class Apply:
    """The events of a frame are to be applied."""

    arrival: ReceivedFrame


@dataclass(frozen=True, slots=True)
class Restart:
    """Another engine is in the worker's place: what dies with the process is gone."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Nothing is to be claimed of the worker: it will be learned again."""


Action = Apply | Restart | Rebuild | ReplayRequest


@dataclass(slots=True)
class FrameCounts:
    """What befell a worker's frames.

    gaps: holes seen. missed: frames never received. duplicates, late: frames that came again, or
    too late to be applied. restarts: engines replaced. replays: asked for. replay_failures: asked
    for without a complete answer. replayed: frames applied from replays. overflows: times there was
    no memory to hold live frames until a replay had come. rivals: frames of others in its name.
    """

    gaps: int = 0
    missed: int = 0
    duplicates: int = 0
    late: int = 0
    restarts: int = 0
    replays: int = 0
    replay_failures: int = 0
    replayed: int = 0
    overflows: int = 0
    rivals: int = 0
