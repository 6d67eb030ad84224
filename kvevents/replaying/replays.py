"""Runs the replays that streams request, a few at a time, and feeds them with the answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

import structlog

from kvevents.replaying.slots import ReplaySlots
from kvevents.source import UnknownPublisherError
from kvevents.transport import ReplayError, ReplayTimeoutError, replay
from kvevents.wire import FrameLimits, PayloadError, decode_in_slices

if TYPE_CHECKING:
    import zmq

    from kvevents.sequencing import ReplayRequest
    from kvevents.stream.worker import WorkerStream
    from kvevents.transport import Frame
    from kvevents.wire import Batch

_SLICE_SECONDS = 0.0005  # how long replayed frames may keep requests waiting

_log = structlog.get_logger("kvatlas.kvevents")


class Replays:
    """The replays under way, at most one for each stream, within an `async with` block.

    Args:
        context: where sockets are made.
        timeout: seconds without a message after which an engine is taken not to answer.
        concurrent: how many replays run at a time; the others wait.
        reorder_seconds: how long to wait for frames that are only reordered, where there is no
            replay socket.
        limits: how much one frame may contain.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        timeout: float = 2.0,
        concurrent: int = 4,
        reorder_seconds: float = 0.05,
        limits: FrameLimits | None = None,
    ) -> None:
        self._context = context
        self._timeout = timeout
        self._reorder_seconds = reorder_seconds
        self._limits = limits or FrameLimits()
        self._slots = ReplaySlots(concurrent)
        self._tasks: dict[WorkerStream, asyncio.Task[None]] = {}
        self._running = asyncio.Event()
        self._running.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Cancel all replays."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, stream: WorkerStream, request: ReplayRequest) -> None:
        """Run a replay for `stream`, in place of the one that is under way."""
        former = self._tasks.pop(stream, None)
        if former is not None and former is not asyncio.current_task():
            former.cancel()
        name = f"replay {stream.worker.pod}/{stream.worker.rank}"
        self._tasks[stream] = asyncio.create_task(self._run(stream, request), name=name)

    def cancel(self, stream: WorkerStream) -> None:
        """Cancel the stream's replay, if there is one."""
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()

    def pause(self) -> None:
        """Give streams nothing until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._running.set()

    async def wait_until_running(self) -> None:
        """Wait until there is no pause."""
        await self._running.wait()

    async def _run(self, stream: WorkerStream, request: ReplayRequest) -> None:
        complete, endpoint = False, stream.replay_endpoint
        try:
            if endpoint is None:
                await asyncio.sleep(self._reorder_seconds)
            else:
                async with self._slots.take(endpoint):
                    complete = await self._feed(stream, request, endpoint)
        except ReplayTimeoutError:  # the stream counts it, and says so
            self._slots.on_silence(endpoint or "")
        except ReplayError as error:
            _log.warning("replay_failed", pod=stream.worker.pod, detail=str(error))
        except Exception:  # noqa: BLE001 - the stream must not wait for ever
            _log.exception("replay_failed", pod=stream.worker.pod)
        await self._running.wait()
        if self._tasks.get(stream) is asyncio.current_task():
            del self._tasks[stream]
        stream.on_replay_finished(request, complete=complete)

    async def _feed(self, stream: WorkerStream, request: ReplayRequest, endpoint: str) -> bool:
        """Feed the stream with the answer to `request`; returns whether the answer is complete.

        Raises ReplayError.
        """
        if stream.sequencer.request is not request:
            return False  # it was superseded while it waited for a slot
        most = 2 * self._limits.payload_bytes
        frames = replay(self._context, endpoint, request.start, self._timeout, most)
        async with aclosing(frames):  # type: ignore[type-var]
            slice_end = time.perf_counter() + _SLICE_SECONDS
            async for frame in frames:
                self._slots.on_answer(endpoint)
                await self._running.wait()
                if stream.sequencer.request is not request:
                    return False
                batch = await _decode(frame, self._limits)
                if not _is_of(stream, frame, batch):
                    self._warn_of_foreign_frame(stream, endpoint, frame, batch)
                    return False
                stream.on_replayed_frame(request, frame, batch)
                while (
                    time.perf_counter() > slice_end
                    or not self._running.is_set()
                    or stream.go_on(slice_end)
                ):
                    await asyncio.sleep(0)
                    await self._running.wait()
                    slice_end = time.perf_counter() + _SLICE_SECONDS
        self._slots.on_answer(endpoint)
        return True

    @staticmethod
    def _warn_of_foreign_frame(
        stream: WorkerStream, endpoint: str, frame: Frame, batch: Batch | None
    ) -> None:
        _log.warning(
            "replay_of_another_pod",
            endpoint=endpoint,
            pod=stream.worker.pod,
            topic=frame.topic,
            rank=None if batch is None else batch.rank,
        )
        stream.on_foreign_replay(
            f"the replay socket {endpoint} answers with frames of another pod or rank: it must be "
            "the engine's own"
        )


async def _decode(frame: Frame, limits: FrameLimits) -> Batch | None:
    try:
        steps = decode_in_slices(frame.payload, limits)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                batch: Batch = done.value
                return batch
            await asyncio.sleep(0)
    except PayloadError:
        return None


def _is_of(stream: WorkerStream, frame: Frame, batch: Batch | None) -> bool:
    """Whether a replayed frame is the stream's, as far as its topic and payload tell."""
    source, worker = stream.source, stream.worker
    if source is None:
        return False
    if frame.topic:
        try:
            if source.publisher_of(frame.topic).pod != worker.pod:
                return False
        except UnknownPublisherError:
            return False
    rank = None if batch is None or source.rank is not None else batch.rank
    return rank is None or rank == worker.rank
