"""What an operator is told of one worker's stream, wherever its events are applied."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One worker's stream at one moment.

    last_event_age, silent: seconds since the last live frame, and since any sign of life; None if
    there never was one. counts: see `FrameCounts`. events, skipped: see `EventCounts`. foreign_replay: see
    `WorkerStream`. resolved: whether any block was ever understood. rivals: see `WorkerStream`.
    """

    last_event_age: float | None = None
    silent: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    engine_block_size: int | None = None
    orphan_blocks: int = 0
    replay_endpoint: str | None = None
    foreign_replay: str = ""
    live_frames: int = 0
    resolved: bool = False
    rivals: int = 0
