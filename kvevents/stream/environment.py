"""What the streams of all workers share: policy, memory and callbacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kvevents.wire import FrameLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from indexer import Worker
    from kvevents.budget import Budget
    from kvevents.limited_log import LimitedLog
    from kvevents.sequencing import ReplayRequest
    from kvevents.stream.unfinished import Unfinished
    from kvevents.stream.worker import WorkerStream


class FleetLimits(NamedTuple):
    """How many workers may join."""

    pods: int = 4096
    models: int = 1024
    ranks: int = 1024
    """Ranks of one pod, which count from 0."""
    connection_workers: int = 1024
    """Workers that publish through one connection."""


@dataclass(frozen=True)
class EventPolicy:
    """What to do with events, and when to trust them."""

    count_copies: bool = True
    """Whether a block announced again has one more copy; see `Index`."""
    forget_on_doubt: bool = False
    """Drop blocks that may be gone, rather than keep and mark them."""
    stale_after: float = 60.0
    """Seconds without a sign of life after which a worker is stale; 0 for never."""
    departed_after: float = 0.0
    """Seconds without a sign of life after which a worker is forgotten; 0 for never."""
    poll_seconds: float = 10.0
    """How often replay sockets are asked for frames that were lost without a trace."""
    waiting_bytes: int = 256 * 1024**2
    """Memory for frames that wait for replays and blocks that wait for parents."""
    frame_limits: FrameLimits = field(default_factory=FrameLimits)
    """How much one frame may contain."""
    fleet_limits: FleetLimits = field(default_factory=FleetLimits)
    """How many workers may join."""


@dataclass(frozen=True, eq=False)
class StreamEnvironment:
    """What a `WorkerStream` needs of its surroundings."""

    policy: EventPolicy
    budget: Budget
    """Memory for everything that waits."""
    peers: Mapping[Worker, str]
    """Where each worker was last heard to connect from: an IP address."""
    live_connections: AbstractSet[int]
    """The connections that are up, of all sources."""
    log: LimitedLog
    unfinished: Unfinished
    """Frames that are applied in slices."""
    request_replay: Callable[[WorkerStream, ReplayRequest], None]
    """Starts a replay for a stream, in place of the one that is under way."""
    on_change: Callable[[], None] = field(default=lambda: None)
    """Called when blocks or the trust of any stream may have changed."""
    on_answer_without_connection: Callable[[WorkerStream], None] = field(default=lambda _: None)
    """Called when an engine's replay socket answers though no connection to it is up."""
    on_trust_changed: Callable[[WorkerStream], None] = field(default=lambda _: None)
    """Called when the trust of a stream may have changed."""
