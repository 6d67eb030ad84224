"""Replays: asking an engine's ROUTER for the frames it still has."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

import structlog
import zmq

from kvevents.transport import Frame, parse_frame
from kvevents.wire import PayloadError, decode_batch

if TYPE_CHECKING:
    from kvevents.sequencing import ReplayRequest
    from kvevents.stream.worker import WorkerStream
    from kvevents.wire import Batch

_END = b"\xff" * 8
_SLICE_SECONDS = 0.0005  # how long replayed frames may keep requests waiting
_MOST_MESSAGES = 10_000  # waiting in memory; what the engine drops beyond is asked for again
_MOST_TRIES_SECONDS = 60.0

_log = structlog.get_logger("kvatlas.kvevents")


_SEQUENCE_BYTES = (8, 24)  # alone, or with the publisher's epoch


def parse_answer(parts: list[bytes]) -> Frame | None:
    """The frame in an answer's parts; None for the end. Raises ValueError if it is neither.

    Engines up to vLLM 0.25 send no topic, so the parts are taken from the back; the topic is empty
    then.
    """
    if len(parts) < 2 or len(parts[-2]) not in _SEQUENCE_BYTES:
        raise ValueError("an answer has a sequence of 8 or 24 bytes and a payload")
    if parts[-2][:8] == _END:
        return None
    return parse_frame([parts[-3] if len(parts) > 3 else b"", *parts[-2:]])


class ReplayDriver:
    """Asks for replays, a few at a time, and hands what comes to the streams that asked.

    timeout: seconds without any message after which an answer is taken to have failed.
    patience: seconds to wait for frames that were only reordered, where nobody can be asked.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        timeout: float = 2.0,
        concurrent: int = 4,
        patience: float = 0.05,
    ) -> None:
        self._context = context
        self._timeout = timeout
        self._patience = patience
        self._slots = asyncio.Semaphore(concurrent)
        self._tasks: dict[WorkerStream, asyncio.Task[None]] = {}
        self._going = asyncio.Event()
        self._going.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Give up all that is asked for."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def ask(self, stream: WorkerStream, ask: ReplayRequest) -> None:
        """Ask for `stream`; what it had asked for before is given up."""
        former = self._tasks.pop(stream, None)
        if former is not None and former is not asyncio.current_task():
            former.cancel()
        name = f"replay {stream.worker.pod}/{stream.worker.rank}"
        self._tasks[stream] = asyncio.create_task(self._run(stream, ask), name=name)

    def leave(self, stream: WorkerStream) -> None:
        """The stream is not interested any more."""
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()

    def pause(self) -> None:
        """Hand nothing over until `resume`."""
        self._going.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._going.set()

    async def going(self) -> None:
        """Wait until there is no pause."""
        await self._going.wait()

    async def _run(self, stream: WorkerStream, ask: ReplayRequest) -> None:
        complete = False
        try:
            endpoint = stream.replay_endpoint
            if endpoint is None:
                await asyncio.sleep(self._patience)
            else:
                async with self._slots:
                    complete = await self._replay(stream, ask, endpoint)
        except zmq.ZMQError as error:
            _log.warning("replay_failed", pod=stream.worker.pod, detail=str(error))
        except Exception:  # noqa: BLE001 - the stream must not wait for ever
            _log.exception("replay_failed", pod=stream.worker.pod)
        await self._going.wait()
        if self._tasks.get(stream) is asyncio.current_task():
            del self._tasks[stream]
        stream.on_replay_finished(ask, complete=complete)

    async def _replay(self, stream: WorkerStream, ask: ReplayRequest, endpoint: str) -> bool:
        """Hand over the answer to `ask`; whether it was complete."""
        give_up_at = time.monotonic() + max(_MOST_TRIES_SECONDS, self._timeout)
        with ReplayConnection(self._context, endpoint) as dealer:
            dealer.send(ask.start)
            slice_end = time.perf_counter() + _SLICE_SECONDS
            while stream.sequencer.asked is ask and time.monotonic() < give_up_at:
                parts = dealer.receive()
                if parts is None:
                    if not await dealer.readable(self._timeout):
                        return False
                    await self._going.wait()
                    slice_end = time.perf_counter() + _SLICE_SECONDS
                    continue
                answer = parse_answer(parts)
                if answer is None:
                    return True
                batch = _decoded(answer.payload)
                if not stream.is_own(answer.topic, batch):
                    _log.warning(
                        "replay_of_another_pod",
                        endpoint=endpoint,
                        pod=stream.worker.pod,
                        topic=answer.topic,
                        rank=None if batch is None else batch.rank,
                    )
                    stream.foreign_replay = (
                        f"the replay socket {endpoint} answers with frames of another pod or rank: "
                        "it must be the engine's own"
                    )
                    return False
                stream.on_replayed_frame(ask, answer, batch)
                if time.perf_counter() > slice_end or not self._going.is_set():
                    await asyncio.sleep(0)
                    await self._going.wait()
                    slice_end = time.perf_counter() + _SLICE_SECONDS
        return False


class ReplayConnection:
    """A socket for one question, on the running event loop, within a `with` block."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def __enter__(self) -> Self:
        try:
            self._socket.setsockopt(zmq.RCVHWM, _MOST_MESSAGES)
            self._socket.setsockopt(zmq.LINGER, 0)
            if "[" in self._endpoint:
                self._socket.setsockopt(zmq.IPV6, 1)
            self._socket.connect(self._endpoint)
        except zmq.ZMQError:
            self._socket.close(linger=0)
            raise
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._woken.set)
        return self

    def send(self, start: int) -> None:
        """Ask for everything from `start` on. The empty part is what engines insist on."""
        self._socket.send_multipart([b"", start.to_bytes(8, "big")], zmq.NOBLOCK)

    def receive(self) -> list[bytes] | None:
        """The next message, or None if there is none yet."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    async def readable(self, seconds: float) -> bool:
        """Wait for a message, so many seconds at most; False if none came."""
        deadline = self._loop.time() + seconds
        while not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._woken.clear()
            if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    await self._woken.wait()
            except TimeoutError:
                return False
        return True

    def __exit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)


def _decoded(payload: bytes) -> Batch | None:
    try:
        return decode_batch(payload)
    except PayloadError:
        return None
