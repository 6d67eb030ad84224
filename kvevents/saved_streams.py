"""The streams of all workers as plain values, for a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from indexer import Worker
from kvevents.stream import dump_stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer import Index
    from kvevents.stream import StreamRegistry


def dump_streams(registry: StreamRegistry) -> list[dict[str, Any]]:
    """Plain values for `restore_streams`, of every stream that can be gone on with."""
    streams = registry.by_worker.values()
    return [dumped for stream in streams if (dumped := dump_stream(stream)) is not None]


def restore_streams(
    registry: StreamRegistry, index: Index, dumped: Sequence[dict[str, Any]]
) -> None:
    """Go on with dumped streams; workers without one leave the index.

    All sources must have been added; a stream of a source that is not configured any more is left
    out. Raises what a malformed dump makes it raise.
    """
    restored = set()
    for stream in dumped:
        worker, model = Worker(*stream["worker"]), stream["model"]
        source = registry.connections.find_source(stream["endpoint"], worker, model)
        if source is not None:
            if worker not in registry.by_worker:
                registry.forget_expected(source)
            registry.attach(source, worker, model).restore(stream)
            restored.add(worker)
    for worker in [blocks.worker for blocks in index.workers()]:
        if worker not in restored:
            index.leave(worker)
            if worker in registry.by_worker:
                index.join(worker, registry.by_worker[worker].model)
