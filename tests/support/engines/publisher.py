"""A real PUB socket that sends what a test gives it, as one pod."""

from __future__ import annotations

import asyncio

import zmq

from support.deadlines import DEADLINE_SECONDS


class Publisher:
    """Publishes from a port of its own, or connects to an endpoint that the service has bound."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], connect: str | None = None) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        if connect is None:
            self._socket.bind("tcp://127.0.0.1:*")
        else:
            self._socket.connect(connect)

    @property
    def endpoint(self) -> str:
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def until_subscribed(self) -> None:
        """Wait for a subscription."""
        if not await asyncio.to_thread(self._socket.poll, int(DEADLINE_SECONDS * 1000)):
            raise TimeoutError(f"no subscription arrived at {self.endpoint}")
        self._socket.recv()

    def send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames)

    def close(self) -> None:
        self._socket.close()
