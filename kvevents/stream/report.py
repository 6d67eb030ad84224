"""One worker's stream as answers, operators and metrics see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexer import TrustState, TrustStatus

if TYPE_CHECKING:
    from kvevents.stream.worker import WorkerStream


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One worker's stream at one moment."""

    last_event_age: float | None = None
    """Seconds since the last live frame; None before the first."""
    silent: float | None = None
    """Seconds since the last sign of life; None if there never was one."""
    counts: dict[str, int] = field(default_factory=dict)
    """See `FrameCounts`."""
    events: dict[str, int] = field(default_factory=dict)
    """Events applied, by type."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Events and blocks not applied, by reason."""
    engine_block_size: int | None = None
    """Tokens of a block of the main cache groups; None before one was announced."""
    orphan_blocks: int = 0
    """Blocks that wait for their parents or their meaning."""
    replay_endpoint: str | None = None
    foreign_replay: str = ""
    """What is wrong if the replay socket answers with another worker's frames."""
    live_frames: int = 0
    resolved: bool = False
    """Whether the meaning of any engine hash was ever learned."""
    rivals: int = 0
    """Other live connections through which somebody speaks in the worker's name."""


def report_of(stream: WorkerStream, now: float) -> StreamReport:
    """The report of a stream at `now` (`time.monotonic`)."""
    applier, last_frame = stream.applier, stream.signs_of_life.last_frame
    counts = stream.sequencer.counts
    return StreamReport(
        last_event_age=None if last_frame is None else now - last_frame,
        silent=stream.silent_for(now),
        counts={name: getattr(counts, name) for name in counts.__slots__},  # asdict is slow
        events=dict(applier.counts.events),
        skipped=dict(applier.counts.skipped),
        engine_block_size=applier.groups.engine_block_size,
        orphan_blocks=applier.orphans.blocks,
        replay_endpoint=stream.replay_endpoint,
        foreign_replay=stream.foreign_replay,
        live_frames=stream.live_frames,
        resolved=applier.has_resolved,
        rivals=len(stream.rivals),
    )


def trust_status_of(stream: WorkerStream, now: float, stale_after: float) -> TrustStatus:
    """How far what is claimed of the worker can be trusted at `now` (`time.monotonic`)."""
    silent = stream.silent_for(now)
    last = stream.sequencer.incarnation.last
    state, reason = _state_of(stream, silent, stale_after)
    return TrustStatus(state, reason, silent, last if last >= 0 else None)


def _state_of(
    stream: WorkerStream, silent: float | None, stale_after: float
) -> tuple[TrustState, str]:
    """See the second table in `kvevents.trust.trust`."""
    trust, sequencer = stream.trust, stream.sequencer
    if stream.rivals:
        return TrustState.DEGRADED, "two_engines_one_name"
    if stream.is_applying:
        return TrustState.RECOVERING, "applying"
    if trust.state is TrustState.UNKNOWN or not sequencer.has_started:
        return trust.state, trust.reason
    if not stream.is_connected:
        return TrustState.STALE, "disconnected"
    if sequencer.replay_failed and trust.state is not TrustState.RECOVERING:
        return TrustState.STALE, "replay_unanswered"
    connections = stream.source_connections
    if connections is not None and connections.is_ready is False:
        return TrustState.STALE, "not_ready"
    if stale_after and silent is not None and silent > stale_after:
        return TrustState.STALE, "silent"
    return trust.state, trust.reason
