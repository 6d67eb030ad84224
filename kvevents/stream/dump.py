"""A stream as plain values, for a snapshot or for the worker's next owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvevents.stream.worker import WorkerStream


def dump_stream(stream: WorkerStream) -> dict[str, Any] | None:
    """What `WorkerStream.restore` takes; None if nobody could go on with the stream."""
    if stream.source is None or not stream.sequencer.has_started or stream.is_applying:
        return None
    return {
        "worker": tuple(stream.worker),
        "model": stream.model,
        "endpoint": stream.source.endpoint,
        "life": stream.sequencer.incarnation.dump(),
        "doubts": stream.trust.dump(),
        "orphans": bool(stream.applier.orphans),
        "tiers": list(stream.applier.named_tiers),
        "gpu_stores": stream.trust.classes.gpu_stores,
    }
