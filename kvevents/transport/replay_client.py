"""Asks an engine's replay socket (a ROUTER) for the frames that it still has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

import zmq

from kvevents.transport.frame import Frame, FrameError, parse_frame
from kvevents.transport.inbox import Inbox, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_END = b"\xff" * 8
_SEQUENCE_BYTES = (8, 24)  # alone, or with the publisher's epoch
# What waits in memory; what the engine drops beyond is requested again.
_MOST_MESSAGES, _MOST_BYTES = 10_000, 16 * 1024**2
_QUEUED_IN_ZMQ = 256
_MESSAGE_BYTES = 64 * 1024**2
_MAX_SECONDS = 60.0  # of a whole answer; what is missing then is requested again


class ReplayError(Exception):
    """A replay that has ended without the engine saying that it is complete."""


class ReplayTimeoutError(ReplayError):
    """The engine has not answered in time."""


def parse_answer(parts: list[bytes]) -> Frame | None:
    """The frame in an answer's message parts; None for the message that ends the answer.

    Engines up to vLLM 0.25 send no topic, so the parts are read from the back; the topic is empty
    then. Raises ReplayError for anything else.
    """
    if len(parts) < 2 or len(parts[-2]) not in _SEQUENCE_BYTES:
        raise ReplayError("an answer has a sequence of 8 or 24 bytes and a payload")
    if parts[-2][:8] == _END:
        return None
    try:
        return parse_frame([parts[-3] if len(parts) > 3 else b"", *parts[-2:]])
    except FrameError as error:
        raise ReplayError(str(error)) from error


async def replay(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    start: int,
    timeout_seconds: float,
    message_bytes: int = _MESSAGE_BYTES,
) -> AsyncIterator[Frame]:
    """The frames that the engine still has from number `start` on, in order.

    The iterator ends when the engine has said that there are no more. While messages are at hand
    it does not let the event loop run. Close it (`contextlib.aclosing`) to give up early.

    Args:
        context, endpoint: where the socket is made, and the ZMQ address of the replay socket.
        start: the number of the first frame wanted.
        timeout_seconds: seconds without a message after which the engine is taken not to answer.
        message_bytes: size of a message; a larger one ends the connection, and so the answer.

    Raises:
        ReplayTimeoutError: the answer does not come, stops or takes too long.
        ReplayError: it is malformed, or the endpoint cannot be used.
    """
    try:
        with _Dealer(context, endpoint, message_bytes) as dealer:
            give_up_at = time.monotonic() + max(_MAX_SECONDS, timeout_seconds)
            dealer.request(start)
            while time.monotonic() < give_up_at:
                parts = dealer.receive()
                if parts is None:
                    if await dealer.is_readable(timeout_seconds):
                        continue
                    raise ReplayTimeoutError(f"no answer from {endpoint} for {timeout_seconds:g} s")
                frame = parse_answer(parts)
                if frame is None:
                    return
                yield frame
            raise ReplayTimeoutError(f"the answer from {endpoint} takes too long")
    except zmq.ZMQError as error:
        raise ReplayError(f"{endpoint}: {error}") from error


class _Dealer:
    """A socket for one request, on the running event loop, within a `with` block."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, message_bytes: int
    ) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._endpoint = endpoint
        self._message_bytes = message_bytes
        self._inbox = Inbox(_MOST_MESSAGES, _MOST_BYTES)
        self._loop = asyncio.get_running_loop()
        self._readable = asyncio.Event()

    def __enter__(self) -> Self:
        try:
            self._socket.setsockopt(zmq.RCVHWM, _QUEUED_IN_ZMQ)
            self._socket.setsockopt(zmq.MAXMSGSIZE, self._message_bytes)
            self._socket.setsockopt(zmq.LINGER, 0)
            if "[" in self._endpoint:
                self._socket.setsockopt(zmq.IPV6, 1)
            self._socket.connect(self._endpoint)
        except zmq.ZMQError:
            self._socket.close(linger=0)
            raise
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._readable.set)
        return self

    def request(self, start: int) -> None:
        """Request everything from `start` on. Engines insist on the empty first part."""
        self._socket.send_multipart([b"", start.to_bytes(8, "big")], zmq.NOBLOCK)

    def receive(self) -> list[bytes] | None:
        """The next message, None if there is none yet."""
        with contextlib.suppress(zmq.Again):
            while not self._inbox.is_full:
                self._inbox.add_message(self._socket.recv_multipart(zmq.NOBLOCK), 0)
        item = self._inbox.pop() if self._inbox else None
        return item.parts if isinstance(item, Message) else None

    async def is_readable(self, seconds: float) -> bool:
        """Wait for a message, `seconds` at most; False if none came."""
        deadline = self._loop.time() + seconds
        while not self._has_message():
            # The descriptor signals a change only once, so look again after clearing the event.
            self._readable.clear()
            if self._has_message():
                break
            try:
                async with asyncio.timeout_at(deadline):
                    await self._readable.wait()
            except TimeoutError:
                return False
        return True

    def _has_message(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def __exit__(self, *exc_info: object) -> None:
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)
